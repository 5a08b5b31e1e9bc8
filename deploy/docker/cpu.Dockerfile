# The server on CPUs. Build from the root of the repository:
#   docker build -f deploy/docker/cpu.Dockerfile -t REGISTRY/incomes:0.1.0-cpu .
# docs/kubernetes.md says how to run it. Base images are pinned by full version; pin them by digest in your registry.

FROM python:3.11.14-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/incomes
WORKDIR /src
COPY pyproject.toml setup.py README.md LICENSE ./
COPY incomes_plugin ./incomes_plugin
COPY server ./server
# The same PyTorch as `make setup` installs; torchvision and its like are built for another one and would break the import.
RUN /opt/incomes/bin/pip install "torch==2.13.0+cpu" --extra-index-url https://download.pytorch.org/whl/cpu \
    && /opt/incomes/bin/pip install ".[cpu,serve,s3]" \
    && /opt/incomes/bin/pip uninstall --yes torchvision torchaudio torchcodec \
    && /opt/incomes/bin/python -c "import torch, vllm, incomes_plugin, incomes_server"

FROM python:3.11.14-slim-bookworm
# g++ is for vLLM's compilation with --no-enforce-eager; libnuma is loaded by its CPU kernels.
# wget: KubeRay's probes call it.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ libnuma1 tini wget \
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
    PYTHONUNBUFFERED=1
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
