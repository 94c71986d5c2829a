# Two stages make the image: one compiles, one installs what runs. Neither tool is in the result.
ARG NODE_IMAGE=node:24-bookworm-slim

FROM ${NODE_IMAGE} AS build
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
# The compiler is plain JavaScript: no install script and no platform binary is needed here.
RUN npm ci --omit=optional --ignore-scripts --no-audit
COPY tsconfig.json tsconfig.build.json ./
COPY src src
RUN npm run build --silent && rm -f dist/.tsbuildinfo

FROM ${NODE_IMAGE} AS dependencies
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
# The optional packages are the embedded Postgres (the image uses DATABASE_URL) and the Cloudflare sockets of pg.
RUN npm ci --omit=dev --omit=optional --no-audit && \
    find node_modules -name '*.map' -delete
# What POLICY_ENGINE, POLICY_GUARD or POLICY_SHADOW=permit need. Example: --build-arg PERMIT_SDK=permitio@2
ARG PERMIT_SDK=""
# As a dependency that runs: npm leaves out what it knows as one for development.
RUN if [ -n "$PERMIT_SDK" ]; then npm install --no-save --save-prod --omit=dev --omit=optional --no-audit "$PERMIT_SDK"; fi
# Set it to build argon2 for the CPU that will run the image: half the time of a sign-in on x86-64-v3, and no start
# on an older CPU. Example: --build-arg ARGON2_CFLAGS="-O3 -march=x86-64-v3"
ARG ARGON2_CFLAGS=""
RUN if [ -n "$ARGON2_CFLAGS" ]; then \
      apt-get update && apt-get install -y --no-install-recommends g++ make python3 && \
      CFLAGS="$ARGON2_CFLAGS" CXXFLAGS="$ARGON2_CFLAGS" \
        node /usr/local/lib/node_modules/npm/node_modules/node-gyp/bin/node-gyp.js \
        rebuild --directory node_modules/argon2 --nodedir /usr/local && \
      find node_modules/argon2/build -type f ! -path '*/Release/argon2.node' -delete && \
      node -e "require('argon2').hash('it works')"; \
    fi

FROM ${NODE_IMAGE}
LABEL org.opencontainers.image.title="Postern" \
      org.opencontainers.image.description="Self-hosted sign-in, roles and permission checks" \
      org.opencontainers.image.licenses="MIT"
# Every other setting is listed in the README. PUBLIC_URL should be given: it is the issuer of the tokens.
ENV NODE_ENV=production ENVIRONMENT=prod HOST=0.0.0.0 PORT=8000 DATA_DIR=/var/lib/postern
RUN install -d -o node -g node -m 0700 /var/lib/postern && \
    printf '#!/bin/sh\nexec node /app/dist/cli.js "$@"\n' > /usr/local/bin/postern && \
    chmod 0755 /usr/local/bin/postern
WORKDIR /app
COPY package.json LICENSE ./
COPY --from=dependencies /app/node_modules node_modules
COPY migrations migrations
COPY seeds seeds
COPY --from=build /app/dist dist
USER node
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --start-interval=1s --retries=3 \
  CMD ["node", "-e", "fetch(`http://127.0.0.1:${process.env.PORT}/health/ready`).then((answer) => process.exit(answer.ok ? 0 : 1), () => process.exit(1))"]
CMD ["node", "--max-semi-space-size=8", "--max-old-space-size=512", "--no-allocation-site-pretenuring", "dist/server.js"]
