#!/usr/bin/env bash
# Compiles ci/requirements.txt: exact versions with hashes of all that CI installs but torch, which
# ci/torch.txt names and which is installed first, so that a CPU machine takes no CUDA libraries.
#
#   bash ci/requirements.sh              follow pyproject.toml, keep the versions that still fit
#   bash ci/requirements.sh --upgrade    the newest versions
#   bash ci/requirements.sh --check      exit code 1 if the committed file is stale
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

compile() { # file, option ...
    local excluded=() name
    for name in torch triton setuptools cuda-{bindings,pathfinder,toolkit} nvidia-nvtx \
        nvidia-{cublas,cuda-cccl,cuda-cupti,cuda-nvrtc,cuda-runtime,cudnn-cu13,cufft,cufile} \
        nvidia-{curand,cusolver,cusparse,cusparselt-cu13,nccl-cu13,nvjitlink,nvshmem-cu13}; do
        excluded+=(--no-emit-package "$name")
    done
    uv pip compile --quiet pyproject.toml --extra dev --extra nvml --extra torchao \
        --constraint ci/torch.txt --universal --python-version 3.11 --generate-hashes \
        --no-emit-index-url --no-emit-find-links --no-header --no-annotate \
        "${excluded[@]}" --output-file "$1" "${@:2}"
}

case "${1:-}" in
    --check)
        fresh=$(mktemp)
        trap 'rm -f "$fresh"' EXIT
        cp ci/requirements.txt "$fresh"
        compile "$fresh"
        diff ci/requirements.txt "$fresh" ||
            { echo 'ci/requirements.txt is stale: bash ci/requirements.sh' >&2 && exit 1; }
        ;;
    '' | --upgrade) compile ci/requirements.txt "$@" ;;
    *) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p;}' "${BASH_SOURCE[0]}" >&2 && exit 2 ;;
esac
