"""Training in several processes, which nnU-Net foresees on one machine with a CUDA device for each."""

import torch
import torch.distributed as dist
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.plugin.seams import process_group_seam


class DistributedTrainer(nnUNetTrainer):
    """nnU-Net's trainer, whose processes may be on several machines and on CPUs.

    nnU-Net takes the number of a process, counted over all machines, for the number of its CUDA device. Here a process
    trains on the device that it was given: the current one where that is CUDA. Everything else is nnU-Net's.
    """

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),  # noqa: B008 - nnU-Net's signature
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        if self.is_ddp:
            is_cuda = device.type == "cuda"
            self.device = torch.device("cuda", torch.cuda.current_device()) if is_cuda else device
            self.grad_scaler = self.grad_scaler if is_cuda else None

    def initialize(self) -> None:
        """Initialize as nnU-Net does, and wrap the network for this process's own device."""
        with process_group_seam(self):
            super().initialize()
        if self.is_ddp:
            self._set_batch_size_and_oversample()
            self.network = self._wrapped(self.network)
            self.loss = self._build_loss()

    def on_train_start(self) -> None:
        """Let the first process write the folds before the others read them."""
        if self.is_ddp:
            if not self.was_initialized:
                self.initialize()
            if self.local_rank == 0:
                self.do_split()
            dist.barrier()
        super().on_train_start()

    def _set_batch_size_and_oversample(self) -> None:
        size = self.configuration_manager.batch_size
        if self.is_ddp and size < dist.get_world_size():
            raise UserError(
                f"{self.plans_manager.plans_name} has batches of {size} and there are {dist.get_world_size()} "
                f"processes: start at most {size}, or plan again with a larger -gpu_memory_target"
            )
        super()._set_batch_size_and_oversample()

    def _wrapped(self, network: nn.Module) -> nn.Module:
        if self.device.type != "cuda":
            return DistributedDataParallel(network)
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        return DistributedDataParallel(network, device_ids=[self.device.index])
