# amped in an image of nothing but itself: one static binary, no shell, nobody's rights.
#
#   docker build -t amped .
#   docker run --rm -p 8080:8080 amped
#
# Where the container's filter forbids io_uring or openat2, amped does without (docs/machine.md).

FROM rust:1-bookworm AS build
WORKDIR /src
COPY . .
# A target that is named keeps the flag from build scripts and macros, which are not static.
RUN RUSTFLAGS="-C target-feature=+crt-static" \
    cargo build --release --locked --package amped --target "$(rustc --print host-tuple)" --target-dir /built \
    && install -D "/built/$(rustc --print host-tuple)/release/amped" /image/amped

FROM scratch
COPY --from=build /image/amped /amped
COPY examples/site /site
USER 65532:65532
EXPOSE 8080
STOPSIGNAL SIGTERM
ENTRYPOINT ["/amped"]
CMD ["serve", "/site", "--listen", "0.0.0.0:8080", "--access-log", "stderr", "--no-supervisor"]
