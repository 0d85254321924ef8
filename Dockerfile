# The sample app: docker build -t sample-app .
# What is installed is pinned with hashes (sample_app/requirements.txt). A tag may come to mean another image; for the same
# one for ever give its digest: --build-arg PYTHON=python@sha256:… In the same way comes a later patch release, which an image
# that others can reach should have; one that the native engine does not understand fails the build.
# checkov:skip=CKV_DOCKER_7:it has a tag, in PYTHON
ARG PYTHON=python:3.13.0-slim-bookworm

FROM ${PYTHON} AS build
WORKDIR /src
# For the native engine. It stays behind in this stage.
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
COPY sample_app/requirements.txt sample_app/build-requirements.txt sample_app/
RUN python -m venv --without-pip /app
RUN python -m pip --python /app/bin/python install --no-cache-dir --no-compile --only-binary :all: --require-hashes -r sample_app/requirements.txt
RUN python -m pip install --no-cache-dir --only-binary :all: --require-hashes -r sample_app/build-requirements.txt
COPY pyproject.toml setup.py README.md LICENSE ./
COPY profiling_middleware profiling_middleware
RUN python -m pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels .
RUN python -m pip --python /app/bin/python install --no-compile --no-deps --no-index --find-links /wheels profiling-middleware
COPY sample_app /srv/sample_app
# Without a time in it, so that the same sources give the same files; the service cannot write them.
RUN python -m compileall -q --invalidation-mode unchecked-hash /app/lib /srv
# A build without the extension would work, less exactly: here it is a mistake.
RUN /app/bin/python -I -c "from profiling_middleware.sampling import why_not_native as why; assert not why(), why()"
# Volumes belong to whom the image says. A number needs no account.
RUN install -d -o 10001 -g 10001 -m 0700 /spool

FROM ${PYTHON}
COPY --from=build /app /app
COPY --from=build /srv /srv
COPY --from=build --chown=10001:10001 /spool /var/spool/profiling
ENV PATH=/app/bin:/usr/local/bin:/usr/bin:/bin HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /srv
VOLUME ["/var/spool/profiling", "/tmp"]
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=15s --timeout=5s --start-period=15s CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=3)"]
CMD ["python", "-m", "sample_app", "--host=0.0.0.0", "--port=8000"]
