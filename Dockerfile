# nnunetv2_d2net with all that it needs, for a CPU:
#   docker build -t d2net .
# and for CUDA:
#   docker build -t d2net:cuda --build-arg BASE=nvidia/cuda:12.6.3-base-ubuntu24.04 \
#     --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu126 .
# Then, for instance: docker run --rm -v "$PWD:/data" d2net segment patient -o out
ARG BASE=python:3.12-slim-bookworm
FROM ${BASE}
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

# A CUDA image brings no Python; nnU-Net compiles nothing that a wheel does not bring.
RUN if ! command -v python3 >/dev/null; then \
        apt-get update && \
        DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends python3 python3-venv && \
        rm -rf /var/lib/apt/lists/*; \
    fi && \
    python3 -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1

# torch first, from the index of its own: a layer that stays when the sources change.
RUN pip install --index-url "${TORCH_INDEX}" "torch>=2.6,!=2.9.*,<3"

WORKDIR /src
COPY pyproject.toml setup.cfg README.md LICENSE ./
COPY nnunetv2_d2net nnunetv2_d2net
COPY trainers trainers
COPY planners planners
COPY docs docs
RUN pip install ".[demo]" && d2net --version

# Where nnU-Net keeps its data; mount a folder there, or set the variables anew.
ENV nnUNet_raw=/data/nnUNet_raw nnUNet_preprocessed=/data/nnUNet_preprocessed nnUNet_results=/data/nnUNet_results
WORKDIR /data
ENTRYPOINT ["d2net"]
CMD ["--help"]
