#!/usr/bin/env bash
# All that docs/performance.md wants to know of a GPU, in one command of at most twenty minutes:
#
#     benchmarks/on_gpu.sh [--out FOLDER] [arguments of on_gpu.py]
#
# Python is $PYTHON, that of .venv, or python3, whichever there is first; it must have torch. What else the package needs
# and Python lacks goes into an environment that sees Python's own packages: from on_gpu_kit/wheels.tar.xz if there is
# one, without a network, else from where pip looks.
#
#     benchmarks/on_gpu.sh --make_kit 3.12 [NAME ...]
#
# makes that file (47 MB) on a machine that has pip, for the Python of that version on 64-bit Linux: the wheels of nnU-Net
# and of what a machine for PyTorch lacks, and of further packages that are named. It travels with the working tree.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
kit=$root/on_gpu_kit/wheels.tar.xz
python=${PYTHON:-$root/.venv/bin/python}
command -v "$python" > /dev/null || python=python3

# Tests need the last ones. What nnU-Net asks for and never imports here is left out.
needed=(nnunetv2 dynamic_network_architectures batchgenerators batchgeneratorsv2 acvl_utils SimpleITK nibabel blosc2
    nilearn surface_distance cc3d ndindex numexpr)
names=(nnunetv2 dynamic-network-architectures batchgenerators batchgeneratorsv2 acvl-utils SimpleITK nibabel blosc2
    nilearn surface-distance connected-components-3d ndindex numexpr)

lacking() {
    "$python" -c 'import importlib.util as u, sys; print(*(n for n in sys.argv[1:] if u.find_spec(n) is None))' "$@"
}

make_kit() {
    local version=$1 work platforms=() n
    shift
    work=$(mktemp -d)
    for n in 2_28 2_27 2_24 2_17; do platforms+=(--platform "manylinux_${n}_x86_64"); done
    platforms+=(--platform manylinux2014_x86_64 --platform manylinux1_x86_64)
    # those that are sources alone are pure Python, and their wheels fit everywhere
    "$python" -m pip wheel --quiet --no-deps --wheel-dir "$work/pure" \
        "nnunetv2>=2.8.1,<2.9" dynamic-network-architectures batchgenerators batchgeneratorsv2 acvl-utils surface-distance
    "$python" -m pip download --quiet --no-deps --only-binary=:all: --python-version "$version" --implementation cp \
        "${platforms[@]}" --find-links "$work/pure" --dest "$work/wheels" "${names[@]}" "$@"
    "$python" - "$work/wheels" "$work/kit" << 'END'
import io, lzma, sys, tarfile, zipfile
from pathlib import Path

# wheels without compression of their own: xz then makes them little more than half as large
filters = [{"id": lzma.FILTER_X86}, {"id": lzma.FILTER_LZMA2, "preset": 6}]
with lzma.open(sys.argv[2], "wb", filters=filters) as packed, tarfile.open(fileobj=packed, mode="w") as tar:
    for path in sorted(Path(sys.argv[1]).glob("*.whl")):
        stored = io.BytesIO()
        with zipfile.ZipFile(path) as wheel, zipfile.ZipFile(stored, "w") as other:
            for entry in wheel.infolist():
                other.writestr(entry.filename, wheel.read(entry))
        entry = tarfile.TarInfo(path.name)
        entry.size = stored.tell()
        stored.seek(0)
        tar.addfile(entry, stored)
END
    mkdir -p "$(dirname "$kit")"
    mv "$work/kit" "$kit"
    rm -r "$work"
    du -h "$kit"
}

if [ "${1:-}" = --make_kit ]; then
    make_kit "${@:2}"
    exit
fi

missing=$(lacking "${needed[@]}")
if [ -n "$missing" ]; then
    environment=$(mktemp -d)
    echo "$python lacks $missing: they go into $environment, which sees its other packages"
    "$python" -m venv --without-pip --system-site-packages "$environment" # Debian's Python cannot install pip
    # of an environment it would see the packages of the Python below it
    "$python" -c 'import site; print(f"import site; list(map(site.addsitedir, {site.getsitepackages()}))")' \
        > "$(echo "$environment"/lib/python*/site-packages)/below.pth"
    pip=("$python" -m pip --python "$environment/bin/python")
    python=$environment/bin/python
    if [ -f "$kit" ]; then
        mkdir "$environment/wheels"
        tar -xJf "$kit" -C "$environment/wheels"
        "${pip[@]}" install --quiet --no-index --no-deps --no-compile "$environment"/wheels/*.whl
    else
        "${pip[@]}" install --quiet "$root[demo]" pytest hypothesis
        "${pip[@]}" uninstall --quiet --yes nnunetv2_d2net # what runs is this folder
    fi
fi
export PYTHONPATH=$root:$root/benchmarks${PYTHONPATH:+:$PYTHONPATH} OMP_WAIT_POLICY=PASSIVE PYTHONUNBUFFERED=1
export PYTORCH_NVML_BASED_CUDA_CHECK=1 # whoever asks whether there is a GPU must not keep the steps from using it
# no script: nnU-Net's processes would run it, and so import all that it imports
exec "$python" -c "import sys, on_gpu; sys.exit(on_gpu.main())" --seconds $((1200 - SECONDS)) "$@"
