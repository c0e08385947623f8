# Build: docker build -t audit-log .
# What is in it: docker build --target sbom --output DIR .
FROM rust:1.95-bookworm AS tools
# Not optimized: each runs for a second.
RUN cargo install --debug --locked cargo-auditable@0.7.7 cargo-cyclonedx@0.5.9

FROM tools AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY ci/build-static ci/static-cc ci/static.ld ci/sidecar-functions ci/sbom ci/
COPY src src
COPY deploy/chart/sidecar.yaml deploy/chart/
# Named in the manifest, so it must be there.
COPY benches benches
RUN CI=true ci/build-static /audit-log
RUN ci/sbom /audit-log.cdx.json

FROM scratch AS sbom
COPY --from=build /audit-log.cdx.json /

# The binary and nothing else: no shell, no libraries, no users but numbers.
FROM scratch
LABEL org.opencontainers.image.title="audit-log" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /audit-log /audit-log
# Memory for large bodies goes back to the system at once: left alone, the allocator raises this threshold to the size of
# what was freed, and keeps as much.
ENV MALLOC_MMAP_THRESHOLD_=131072
USER 65532:65532
ENTRYPOINT ["/audit-log"]
CMD ["serve"]
