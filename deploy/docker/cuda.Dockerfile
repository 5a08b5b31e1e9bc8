# The server on NVIDIA GPUs: written, built and run by nobody yet. Build from the root of the repository:
#   docker build -f deploy/docker/cuda.Dockerfile -t REGISTRY/incomes:0.1.0-cuda .
# docs/kubernetes.md says how to run it. Base images are pinned by full version; pin them by digest in your registry.

FROM python:3.11.14-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/incomes
WORKDIR /src
COPY pyproject.toml setup.py README.md LICENSE ./
COPY incomes_plugin ./incomes_plugin
COPY server ./server
# The wheels of PyTorch bring the CUDA libraries; the driver comes from the node.
RUN /opt/incomes/bin/pip install ".[cuda,serve,s3]"

FROM python:3.11.14-slim-bookworm
# gcc and g++: Triton compiles kernels at the start.
# wget: KubeRay's probes call it.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc g++ libnuma1 tini wget \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 incomes \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/cache/incomes --shell /usr/sbin/nologin incomes \
    && install --directory --owner incomes --group incomes /var/cache/incomes /var/lib/incomes
COPY --from=build /opt/incomes /opt/incomes
# Everything that is written lies in three places: the cache (models, compiled code), the edit store, and /tmp.
ENV PATH=/opt/incomes/bin:$PATH \
    HOME=/var/cache/incomes \
    XDG_CACHE_HOME=/var/cache/incomes \
    XDG_CONFIG_HOME=/var/cache/incomes/config \
    XDG_DATA_HOME=/var/lib \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
VOLUME ["/var/cache/incomes", "/var/lib/incomes"]
USER 10001:10001
WORKDIR /tmp
EXPOSE 8000 8001
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=15m --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8001/livez', timeout=4)"]
# tini takes in the processes that Ray leaves behind when one of its own dies, and passes signals on.
ENTRYPOINT ["tini", "--", "incomes"]
CMD ["serve"]
