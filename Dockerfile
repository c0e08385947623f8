# Build: docker build -t audit-log .
FROM rust:1.95-bookworm AS tools
# Not optimized: it runs for a second.
RUN cargo install --debug --locked cargo-auditable@0.7.7

FROM tools AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY ci/build-static ci/static.ld ci/
COPY src src
COPY deploy/chart/sidecar.yaml deploy/chart/
# Named in the manifest, so it must be there.
COPY benches benches
RUN CI=true ci/build-static /audit-log

# The binary and nothing else: no shell, no libraries, no users but numbers.
FROM scratch
COPY --from=build /audit-log /audit-log
# Memory for large bodies goes back to the system at once: left alone, the allocator raises this threshold to the size of
# what was freed, and keeps as much.
ENV MALLOC_MMAP_THRESHOLD_=131072
USER 65532:65532
ENTRYPOINT ["/audit-log"]
CMD ["serve"]
