# The endpoint server: docker build --file deploy/docker/endpoint.Dockerfile --target endpoint --tag ml-assets-endpoint .
#
# Targets: `endpoint` serves releases that score by a graph; `endpoint-skops` also those that need scikit-learn.
# It serves what is mounted at /opt/ml/model, one release or a folder of releases with their pointers, on port 8080:
# as SageMaker starts it with `serve`, where IAM decides who may ask; otherwise only with ML_ASSETS_ENDPOINT_KEYS or
# ML_ASSETS_ENDPOINT_KEYS_FILE. Nothing is written outside /var/lib/ml-assets: the root may be read-only.
ARG PYTHON=3.12

FROM python:${PYTHON}-slim AS packages
RUN python -m venv /opt/venv
COPY deploy/docker/endpoint.txt /tmp/endpoint.txt
RUN /opt/venv/bin/pip install --no-cache-dir --no-deps --requirement /tmp/endpoint.txt

FROM packages AS packages-skops
COPY deploy/docker/endpoint-skops.txt /tmp/endpoint-skops.txt
RUN /opt/venv/bin/pip install --no-cache-dir --no-deps --requirement /tmp/endpoint-skops.txt

FROM python:${PYTHON}-slim AS base
RUN groupadd --gid 10001 endpoint \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin endpoint \
 && mkdir -p /opt/ml/model /var/lib/ml-assets \
 && chown 10001:10001 /var/lib/ml-assets
COPY ml_assets /opt/endpoint/ml_assets
# Compiled here, because the server may write nothing there: it starts in half the time.
RUN python -m compileall -q /opt/endpoint
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/opt/endpoint \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/nonexistent \
    ORT_DISABLE_TELEMETRY=1 \
    ML_ASSETS_HOME=/var/lib/ml-assets
WORKDIR /opt/endpoint
EXPOSE 8080
STOPSIGNAL SIGTERM
# By number, so that Kubernetes can see that it is not root.
USER 10001:10001
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python", "-m", "ml_assets.serving.healthy"]
ENTRYPOINT ["python", "-m", "ml_assets.serving"]
CMD ["/opt/ml/model", "8080", "0.0.0.0"]

FROM base AS endpoint-skops
COPY --from=packages-skops /opt/venv /opt/venv

FROM base AS endpoint
COPY --from=packages /opt/venv /opt/venv
