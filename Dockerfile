# syntax=docker/dockerfile:1
# The exact release, as far as a tag can be exact: a digest would pin one architecture's rebuild of the base and with it every security
# fix that is not in it. Where you need byte-for-byte repeatable builds, pass --build-arg NODE_IMAGE=node@sha256:...
ARG NODE_IMAGE=node:24.21.0-bookworm-slim

# Compiles the program.
FROM ${NODE_IMAGE} AS build
WORKDIR /build
COPY package.json package-lock.json ./
# The compiler and the types need no install scripts.
RUN npm ci --ignore-scripts --no-audit --no-fund
COPY tsconfig.json tsconfig.build.json ./
COPY scripts/build.mjs scripts/
COPY src src
RUN node scripts/build.mjs

# What it needs at run time; LZ4 is compiled here, so that the compiler stays behind.
FROM ${NODE_IMAGE} AS modules
# Debian keeps only the newest version of a package, so a pinned one would soon not be found.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ make python3 \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /app
COPY package.json package-lock.json ./
RUN npm ci --omit=dev --no-audit --no-fund

# pg_dump, pg_dumpall, pg_restore and psql of every supported major version. Each of them reads servers of its own version and older.
FROM ${NODE_IMAGE} AS clients
# The repository of the PostgreSQL project. Its signing key comes in Debian's postgresql-common, so it is as trusted as the base image.
ARG PG_REPOSITORY="deb [signed-by=/usr/share/postgresql-common/pgdg/apt.postgresql.org.asc] https://apt.postgresql.org/pub/repos/apt bookworm-pgdg main"
ARG PG_MAJORS="13 14 15 16 17 18"
# Four programs of each are taken, without the rest of their packages and what these depend on.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates postgresql-common \
    && echo "${PG_REPOSITORY}" > /etc/apt/sources.list.d/postgresql.list \
    && apt-get update \
    && for major in ${PG_MAJORS}; do apt-get install -y --no-install-recommends "postgresql-client-${major}" || exit 1; done \
    && for major in ${PG_MAJORS}; do \
         for program in pg_dump pg_dumpall pg_restore psql; do \
           install -D "/usr/lib/postgresql/${major}/bin/${program}" "/clients/${major}/bin/${program}" || exit 1; \
         done; \
       done \
    && rm -rf /var/lib/apt/lists/*

FROM ${NODE_IMAGE}
ARG PG_REPOSITORY="deb [signed-by=/usr/share/postgresql-common/pgdg/apt.postgresql.org.asc] https://apt.postgresql.org/pub/repos/apt bookworm-pgdg main"
COPY --from=clients /usr/share/postgresql-common/pgdg/ /usr/share/postgresql-common/pgdg/
# libpq5 from the same repository, because the newest pg_dump needs its own. tini is process 1: it hands on signals and reaps what the
# catalog's server leaves.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates tini \
    && echo "${PG_REPOSITORY}" > /etc/apt/sources.list.d/postgresql.list \
    && apt-get update \
    && apt-get install -y --no-install-recommends liblz4-1 libpq5 libreadline8 libzstd1 \
    && rm -rf /var/lib/apt/lists/*
COPY --from=clients /clients/ /usr/lib/postgresql/
COPY --from=modules /app/node_modules /app/node_modules
COPY --from=build /build/dist /app/dist
COPY package.json LICENSE /app/
COPY drizzle /app/drizzle
# A user that no other program runs as, a state directory that belongs to it, and a proof that every program finds its libraries.
RUN groupadd --gid 8470 backupd \
    && useradd --uid 8470 --gid backupd --home-dir /var/lib/backupd --no-create-home --shell /usr/sbin/nologin backupd \
    && install -d -o backupd -g backupd -m 0700 /var/lib/backupd /backups \
    && ln -s /app/dist/main.js /usr/local/bin/backupd \
    && for program in /usr/lib/postgresql/*/bin/*; do "${program}" --version || exit 1; done \
    && backupd --version
WORKDIR /var/lib/backupd
USER backupd
# In a container loopback is of no use to anybody else; what is reachable from outside is decided by what you publish.
ENV NODE_ENV=production \
    BACKUPD_STATE_DIR=/var/lib/backupd \
    BACKUPD_LISTEN=0.0.0.0:8470
VOLUME ["/var/lib/backupd"]
EXPOSE 8470
# The drain of 30 s, and time to clean up and stop the catalog after it, want `stop_grace_period: 120s`.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["node", "-e", "fetch('http://127.0.0.1:' + process.env.BACKUPD_LISTEN.split(':').pop() + '/livez').then((answer) => process.exit(answer.ok ? 0 : 1), () => process.exit(1))"]
ENTRYPOINT ["tini", "--", "backupd"]
CMD ["daemon"]
