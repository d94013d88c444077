# The image holds one static program and nothing else: no shell, no libraries, no package manager.
#
#     docker build --tag frostgate .
#     docker run --detach --name frostgate --publish 80:8080 \
#       --volume /var/run/docker.sock:/var/run/docker.sock --volume frostgate:/var/lib/frostgate frostgate
#
# examples/compose has the same as a file. Everything below "FROM scratch" is tested by .ci/package.

FROM rust:1-bookworm AS build
WORKDIR /src
COPY . .
# glibc is linked in. Naming the target keeps the flag away from what only runs while building.
RUN target=$(rustc -vV | sed -n 's/^host: //p') \
 && RUSTFLAGS="-C target-feature=+crt-static" \
    cargo build --release --locked --bin frostgate --target "$target" \
 && mkdir -p /image/etc/frostgate /image/etc/ssl/certs /image/var/lib/frostgate \
 && cp /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ \
 && cp "target/$target/release/frostgate" /image/frostgate

FROM scratch
COPY --from=build /image/ /
# The configuration, if there is one, is /etc/frostgate/frostgate.toml, and certificates are beside it
# in certs/. Tokens, records and nothing else are in the volume.
WORKDIR /etc/frostgate
ENV FROSTGATE_STATE_DIR=/var/lib/frostgate
VOLUME /var/lib/frostgate
# End users and check-ins. The API is at 127.0.0.1:8081 inside the container, so that nobody reaches it
# from outside unless FROSTGATE_LISTEN__ADMIN says so.
EXPOSE 8080
# It runs as root for the engine's socket, which is root's. To run it as somebody else, give that user
# the socket's group and the volume: docker run --user 65532:$(stat -c %g /var/run/docker.sock) …
HEALTHCHECK --interval=10s --timeout=6s --start-period=30s CMD ["/frostgate", "health"]
ENTRYPOINT ["/frostgate"]
CMD ["serve"]
