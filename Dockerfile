# frostbert with ONNX Runtime, for `predict` and `serve`. Runs and models are mounted, not part of the image:
#
#   docker build -t frostbert .
#   docker run --rm -v "$PWD:/work" frostbert predict runs/sentiment --text "I would buy it again."
#   docker run --rm -v "$PWD:/work:ro" -p 127.0.0.1:8080:8080 -e FROSTBERT_API_KEY frostbert \
#       serve runs/sentiment --host 0.0.0.0
#
# docs/serving.md says more.

# The program, with the oldest Rust that builds it (rust-version in Cargo.toml).
FROM rust:1.92-slim-bookworm AS build
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev make
WORKDIR /src
COPY . .
RUN cargo build --release --locked

# ONNX Runtime, at the version and SHA-256 of models/pins.txt.
FROM debian:bookworm-slim AS runtime
RUN apt-get update && apt-get install --yes --no-install-recommends ca-certificates python3 python3-pip
WORKDIR /src
COPY models/pins.txt models/pins.txt
COPY scripts/setup.sh scripts/setup.sh
RUN sh scripts/setup.sh

FROM debian:bookworm-slim
COPY --from=build /src/target/release/frostbert /usr/local/bin/frostbert
COPY --from=runtime /src/runtime/ /opt/onnxruntime/
COPY LICENSE-APACHE LICENSE-MIT /usr/local/share/doc/frostbert/
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin frostbert
ENV ORT_DYLIB_PATH=/opt/onnxruntime/libonnxruntime.so
WORKDIR /work
# As a number, so that Kubernetes sees with runAsNonRoot that it is not root.
USER 10001
EXPOSE 8080
# Of a server; the slim image has no client, but bash can open a connection.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD bash -c 'exec 3<>/dev/tcp/127.0.0.1/8080 \
    && printf "GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" >&3 \
    && head -n 1 <&3 | grep -q " 200 "'
ENTRYPOINT ["frostbert"]
CMD ["--help"]
