# Earshot in a container. `docker build --target cpu -t earshot .` or `--target gpu`; how to run it: docs/installing.md.
# EXTRAS: names of requirements/*.txt besides train, such as "export ray pages".
FROM python:3.12-slim-bookworm AS base
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 UV_NO_CACHE=1 UV_SYSTEM_PYTHON=1 UV_COMPILE_BYTECODE=1
RUN pip install --quiet uv && useradd --create-home --uid 1000 earshot && mkdir /earshot && chown earshot /earshot
WORKDIR /earshot
COPY requirements/ requirements/
ARG EXTRAS="export"

# PyTorch without CUDA
FROM base AS cpu
RUN uv pip install --torch-backend cpu -r requirements/train.txt \
    $(for extra in $EXTRAS; do echo -r requirements/$extra.txt; done)
COPY --chown=earshot Makefile README.md LICENSE pyproject.toml ./
COPY --chown=earshot configs/ configs/
COPY --chown=earshot folds/ folds/
COPY --chown=earshot kernels/ kernels/
COPY --chown=earshot submissions/ submissions/
COPY --chown=earshot src/ src/
USER earshot
ENTRYPOINT ["python"]
CMD ["src/demo.py", "--quick"]

# PyTorch's packages bring CUDA; the machine brings its driver (NVIDIA Container Toolkit)
FROM base AS gpu
RUN uv pip install -r requirements/train.txt $(for extra in $EXTRAS; do echo -r requirements/$extra.txt; done)
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=cpu --chown=earshot /earshot /earshot
USER earshot
ENTRYPOINT ["python"]
CMD ["src/demo.py", "--quick"]
