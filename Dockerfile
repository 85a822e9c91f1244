# The gateway and the agent are one image: `sallyport gateway`, `sallyport agent run`.
# Building needs an engine and a way to the images and packages; nothing here was tuned for one.
FROM node:26-bookworm-slim AS base
# The pinned Node of the lockfile (docs/decisions/0001-runtime-and-pins.md) needs libatomic.
RUN apt-get update \
  && apt-get install -y --no-install-recommends libatomic1 \
  && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/sallyport

FROM base AS packages
COPY package.json package-lock.json .npmrc ./
RUN npm ci --omit=dev

# The agent in one file, for devices to fetch from the gateway.
FROM base AS agent
COPY package.json package-lock.json .npmrc tsconfig.json ./
RUN npm ci
COPY agent-tunnel agent-tunnel
COPY audit audit
COPY ca ca
COPY cli cli
COPY deploy/agent deploy/agent
RUN npm run build:agent

FROM base AS sallyport
COPY --from=packages /opt/sallyport/node_modules node_modules
COPY package.json ./
COPY agent-tunnel agent-tunnel
COPY audit audit
COPY ca ca
COPY cli cli
COPY gateway gateway
COPY policy policy
COPY --from=agent /opt/sallyport/dist/agent dist/agent
RUN ln -s /opt/sallyport/cli/bin.mjs /usr/local/bin/sallyport \
  && mkdir /data \
  && chown node:node /data
USER node
VOLUME /data
EXPOSE 8443
ENTRYPOINT ["sallyport"]
CMD ["gateway", "--data", "/data"]

# A demo device: the agent, and a pretend machine on the container's own loopback.
FROM sallyport AS device
COPY test/demo/targets test/demo/targets
COPY deploy/compose/device.sh /usr/local/bin/device
ENTRYPOINT ["sh", "/usr/local/bin/device"]
CMD []

# A syslog receiver over TLS, to see events arrive; a plant brings its own.
FROM debian:bookworm-slim AS siem
RUN apt-get update \
  && apt-get install -y --no-install-recommends openssl rsyslog rsyslog-openssl \
  && rm -rf /var/lib/apt/lists/*
CMD ["rsyslogd", "-n"]
