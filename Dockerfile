# Rowcast in a small image: one binary, its web pages inside, run by a user without rights.
#
#   docker build -t rowcast .
#   docker run --rm -p 127.0.0.1:8888:8888 \
#       -e ROWCAST__SERVER__LISTEN=0.0.0.0:8888 -e ROWCAST__AUTH__ANONYMOUS=true rowcast
#
# Without a command it serves; `produce`, `check` and all others follow the image's name. Nobody
# reaches a container's own loopback, and on another address it starts only when told that
# everybody may come in.

FROM rust:1.95-bookworm AS build
WORKDIR /src
# The dependencies first, in a layer that lasts until Cargo.lock changes.
COPY Cargo.toml Cargo.lock ./
RUN mkdir src tests \
    && echo 'fn main() {}' | tee src/main.rs tests/main.rs > src/lib.rs \
    && cargo build --locked --release \
    && rm -r src
COPY src src
COPY web web
COPY client client
COPY migrations migrations
COPY nats nats
COPY rowcast.example.toml ./
# Copies keep the times of the originals, which may be older than what was built above.
RUN touch src/main.rs src/lib.rs && cargo build --locked --release

FROM debian:bookworm-slim
RUN useradd --uid 10001 --shell /usr/sbin/nologin --home-dir /data --create-home rowcast
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /src/target/release/rowcast /usr/local/bin/rowcast
COPY deploy/healthy /usr/local/bin/healthy
USER 10001
# Where a SQLite database and its bus are kept, and where a rowcast.toml is looked for.
WORKDIR /data
EXPOSE 8888
HEALTHCHECK --interval=5s --timeout=3s --start-period=20s --retries=3 CMD ["healthy", "8888", "/readyz"]
ENTRYPOINT ["rowcast"]
CMD ["serve"]
