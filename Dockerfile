# Images of the three parties. Keys, models and pictures are mounted, never built in.
#
#   docker build --target provider -t threepc-provider .    neither torch nor MMLab nor OpenCV
#   docker build --target client -t threepc-client .        and OpenCV, which reads pictures
#   docker build --target server -t threepc-server .        and torch for processors, and MMLab
#
# deploy/compose.yaml and deploy/kubernetes/ start them; docs/deployment.md says how to make keys. The kernels are compiled here, for the
# processor that builds: where they run on another kind of processor, they are compiled again at the first start.
ARG PYTHON=python:3.11-slim-bookworm

# What is installed

FROM ${PYTHON} AS packages
ENV PATH=/opt/threepc/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python3 -m venv /opt/threepc
WORKDIR /src
COPY launch/constraints.txt deploy/requirements.txt ./
RUN pip install --no-deps --constraint constraints.txt --requirement requirements.txt

FROM packages AS client-packages
COPY deploy/requirements-client.txt ./
RUN pip install --no-deps --constraint constraints.txt --requirement requirements-client.txt

FROM packages AS server-packages
# torch's index of CPU builds: the default one has a build with gigabytes of CUDA. Empty: the default one
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
# mmcv builds with the setuptools of this environment alone, and without compiled operations, which are not needed
RUN pip install --no-deps --constraint constraints.txt ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch \
    && pip install --constraint constraints.txt setuptools wheel torch opencv-python-headless pillow scipy joblib matplotlib \
    && MMCV_WITH_OPS=0 pip install --no-build-isolation --constraint constraints.txt mmcv \
    && pip install --constraint constraints.txt mmcls mmsegmentation

# threepc itself. One time for all its files, so that kernels compiled in one image count in the others
FROM packages AS threepc
RUN pip install --constraint constraints.txt setuptools wheel
COPY setup.cfg pyproject.toml README.md LICENSE ./
COPY threepc threepc
RUN pip wheel --no-deps --no-build-isolation --wheel-dir wheels . \
    && pip install --no-deps --no-compile --prefix /installed wheels/*.whl \
    && find /installed -exec touch --date=@0 {} + \
    && python3 -m compileall -q -s /installed -p /opt/threepc /installed/lib

# What runs

FROM ${PYTHON} AS runtime
RUN groupadd --system --gid 10001 threepc \
    && useradd --system --uid 10001 --gid threepc --home-dir /tmp --shell /usr/sbin/nologin threepc \
    && install --directory --owner=threepc --group=threepc --mode=0700 /var/cache/threepc /var/lib/threepc
ENV PATH=/opt/threepc/bin:$PATH THREEPC_CACHE=/var/cache/threepc HOME=/tmp OMP_NUM_THREADS=1 PYTHONUNBUFFERED=1 \
    GLIBC_TUNABLES=glibc.malloc.hugetlb=1
WORKDIR /data
ENTRYPOINT ["threepc"]

FROM runtime AS provider
COPY --from=packages /opt/threepc /opt/threepc
COPY --from=threepc /installed /opt/threepc
USER 10001
RUN threepc compile
EXPOSE 7002
HEALTHCHECK --interval=30s --timeout=5s --start-period=2m \
    CMD ["threepc", "status", "9464"]
CMD ["provider", "--deployment", "/keys", "--observe", "9464"]

FROM runtime AS client
COPY --from=client-packages /opt/threepc /opt/threepc
COPY --from=threepc /installed /opt/threepc
COPY --from=provider --chown=10001:10001 /var/cache/threepc /var/cache/threepc
USER 10001
HEALTHCHECK NONE
CMD ["client", "--help"]

FROM runtime AS server
COPY --from=server-packages /opt/threepc /opt/threepc
COPY --from=threepc /installed /opt/threepc
COPY --from=provider --chown=10001:10001 /var/cache/threepc /var/cache/threepc
USER 10001
EXPOSE 7001
HEALTHCHECK --interval=30s --timeout=5s --start-period=5m \
    CMD ["threepc", "status", "9464"]
CMD ["server", "--help"]
