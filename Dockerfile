# docker build -t pagoda .                              PyTorch for CPUs
# docker build -t pagoda --build-arg COMPUTE=cuda .     PyTorch with CUDA, as uv.lock has it
# docker run --rm -v "$PWD/runs:/pagoda/runs" -v "$PWD/reports:/pagoda/reports" pagoda dvc repro
# docker run --rm --gpus all ... pagoda dvc repro
FROM ghcr.io/astral-sh/uv:0.9 AS uv

FROM python:3.12-slim-bookworm
ARG COMPUTE=cpu
# '--group dev' for tests and linters
ARG PACKAGES=--no-dev
SHELL ["/bin/bash", "-o", "pipefail", "-c"]

# Versions are those of the image's Debian release.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git make procps \
    && rm -rf /var/lib/apt/lists/*
COPY --from=uv /uv /usr/local/bin/uv

# Outside the project's folder, so that a checkout may be mounted over it.
ENV UV_PROJECT_ENVIRONMENT=/opt/pagoda VIRTUAL_ENV=/opt/pagoda PATH=/opt/pagoda/bin:$PATH UV_LINK_MODE=copy
WORKDIR /pagoda
COPY pyproject.toml uv.lock README.md LICENSE ./
# The lock has PyTorch with CUDA; the same version for CPUs comes from PyTorch's own index.
RUN uv venv /opt/pagoda \
    && if [ "$COMPUTE" = cuda ]; then uv sync --frozen --no-install-project ${PACKAGES}; \
    else uv export --quiet --frozen --no-emit-project --no-hashes ${PACKAGES} \
        | grep -vE '^(nvidia|cuda|triton)[a-z0-9-]*==' \
        | uv pip install --torch-backend cpu --requirement -; fi \
    && uv cache clean
COPY . .
RUN uv pip install --no-deps --editable . \
    && git config --system --add safe.directory /pagoda
CMD ["pagoda", "--help"]
