# Register two scans in a container:
#   docker build -t regcascade .
#   docker run --rm -v "$PWD":/scans regcascade register fixed.nii.gz moving.nii.gz --checkpoint hippocampus --out result
# PyTorch's default build for Linux brings CUDA: the same image uses a GPU with `docker run --gpus all`. Another base,
# such as one with CUDA and Python 3.11 or newer, is `--build-arg BASE=IMAGE`; a PyTorch that it holds is kept if it is
# the pinned one.
ARG BASE=python:3.11-slim
FROM ${BASE}

WORKDIR /opt/regcascade
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY regcascade regcascade
RUN python -m pip install --no-cache-dir -c constraints.txt .

RUN useradd --create-home regcascade
USER regcascade
WORKDIR /scans
ENTRYPOINT ["regcascade"]
CMD ["--help"]
