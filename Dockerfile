# The digest fixes the image for every architecture; docs/contributors/release.md says how to renew it.
FROM python:3.13-slim@sha256:9662417aace5ae7b8e2609cce472b72a8958e134ba372808abe9cc1a0c0125e6 AS base

# Two stages: the environment is made in the first, the second holds only what runs. Its packages
# come from constraints.txt; the extra [demo] is for the service demo of docker-compose.yml.
FROM base AS build
WORKDIR /src
# strip, for the libraries of the packages: a tenth of the image
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends binutils
COPY constraints.txt ./
COPY scripts/make_environment.sh scripts/
COPY packages packages
# The client's machine has the bridge: the path of one in here would be printed as its command
RUN scripts/make_environment.sh /opt/pvemcp && rm /opt/pvemcp/bin/pvemcp-bridge

FROM base
RUN useradd --system --uid 10001 --home-dir /var/lib/pvemcp --create-home pvemcp
COPY --from=build /opt/pvemcp /opt/pvemcp
ENV PATH=/opt/pvemcp/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PVEMCP_HOST=0.0.0.0 \
    PVEMCP_STATE_DIR=/var/lib/pvemcp
USER pvemcp
VOLUME /var/lib/pvemcp
EXPOSE 8811
HEALTHCHECK --interval=15s --timeout=5s --start-period=20s \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8811/healthz', timeout=4)"]
ENTRYPOINT ["pvemcp"]
CMD ["serve"]
