# Build: docker build -t audit-log .
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY ci/build-static ci/
COPY src src
RUN ci/build-static /audit-log

# The binary and nothing else: no shell, no libraries, no users but numbers.
FROM scratch
COPY --from=build /audit-log /audit-log
USER 65532:65532
ENTRYPOINT ["/audit-log"]
CMD ["serve"]
