-- Tokens: sessions that go on, OAuth clients, rotation of signing keys, and what ends tokens before they expire.
CREATE TABLE "client_secrets" (
	"id" uuid PRIMARY KEY NOT NULL,
	"client_id" uuid NOT NULL,
	"secret_hash" text NOT NULL,
	"secret_hint" text NOT NULL,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"expires_at" timestamp (3) with time zone
);
--> statement-breakpoint
CREATE TABLE "clients" (
	"id" uuid PRIMARY KEY NOT NULL,
	"environment_id" uuid NOT NULL,
	"name" text NOT NULL,
	"grant_types" text[] NOT NULL,
	"scopes" text[] NOT NULL,
	"audiences" text[] NOT NULL,
	"token_endpoint_auth_method" text NOT NULL,
	"jwks" jsonb,
	"is_dpop_required" boolean DEFAULT false NOT NULL,
	"account_id" uuid,
	"is_active" boolean DEFAULT true NOT NULL,
	"token_version" integer DEFAULT 1 NOT NULL,
	"revision" integer DEFAULT 1 NOT NULL,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"updated_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "clients_auth_method_check" CHECK ("clients"."token_endpoint_auth_method" in ('client_secret_basic', 'client_secret_post', 'private_key_jwt', 'none')),
	CONSTRAINT "clients_jwks_check" CHECK (("clients"."token_endpoint_auth_method" = 'private_key_jwt') = ("clients"."jwks" is not null))
);
--> statement-breakpoint
CREATE TABLE "revocation_feed" (
	"is_only" boolean PRIMARY KEY DEFAULT true NOT NULL,
	"epoch" text NOT NULL,
	"version" bigint DEFAULT 0 NOT NULL,
	"token_lifetime_seconds" integer DEFAULT 900 NOT NULL,
	CONSTRAINT "revocation_feed_is_only_check" CHECK ("revocation_feed"."is_only")
);
--> statement-breakpoint
CREATE TABLE "revocations" (
	"id" bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY (sequence name "revocations_id_seq" INCREMENT BY 1 MINVALUE 1 MAXVALUE 9223372036854775807 START WITH 1 CACHE 1),
	"version" bigint,
	"transaction_id" "xid8" DEFAULT pg_current_xact_id() NOT NULL,
	"kind" text NOT NULL,
	"ref" text NOT NULL,
	"token_version" integer,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"expires_at" timestamp (3) with time zone NOT NULL,
	CONSTRAINT "revocations_kind_check" CHECK ("revocations"."kind" in ('session', 'token', 'user', 'client'))
);
--> statement-breakpoint
CREATE TABLE "seen_tokens" (
	"kind" text NOT NULL,
	"key_hash" text NOT NULL,
	"expires_at" timestamp (3) with time zone NOT NULL,
	CONSTRAINT "seen_tokens_pkey" PRIMARY KEY("kind","key_hash")
);
--> statement-breakpoint
ALTER TABLE "sessions" ADD COLUMN "scope" text;--> statement-breakpoint
ALTER TABLE "sessions" ADD COLUMN "audiences" text[];--> statement-breakpoint
ALTER TABLE "sessions" ADD COLUMN "dpop_thumbprint" text;--> statement-breakpoint
ALTER TABLE "sessions" ADD COLUMN "refresh_hash" text;--> statement-breakpoint
ALTER TABLE "sessions" ADD COLUMN "previous_refresh_hash" text;--> statement-breakpoint
ALTER TABLE "sessions" ADD COLUMN "refreshed_at" timestamp (3) with time zone;--> statement-breakpoint
ALTER TABLE "sessions" ADD COLUMN "idle_expires_at" timestamp (3) with time zone;--> statement-breakpoint
ALTER TABLE "signing_keys" ADD COLUMN "activates_at" timestamp (3) with time zone;--> statement-breakpoint
ALTER TABLE "client_secrets" ADD CONSTRAINT "client_secrets_client_id_clients_id_fk" FOREIGN KEY ("client_id") REFERENCES "public"."clients"("id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "clients" ADD CONSTRAINT "clients_environment_id_environments_id_fk" FOREIGN KEY ("environment_id") REFERENCES "public"."environments"("id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "clients" ADD CONSTRAINT "clients_account_id_fkey" FOREIGN KEY ("environment_id","account_id") REFERENCES "public"."accounts"("environment_id","id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
CREATE INDEX "client_secrets_client_id_idx" ON "client_secrets" USING btree ("client_id");--> statement-breakpoint
CREATE INDEX "clients_list_idx" ON "clients" USING btree ("environment_id","id");--> statement-breakpoint
CREATE INDEX "clients_account_id_idx" ON "clients" USING btree ("account_id");--> statement-breakpoint
CREATE INDEX "sessions_account_id_idx" ON "sessions" USING btree ("account_id") WHERE ended_at is null;--> statement-breakpoint
CREATE INDEX "revocations_version_idx" ON "revocations" USING btree ("version");--> statement-breakpoint
CREATE INDEX "revocations_unsealed_idx" ON "revocations" USING btree ("transaction_id") WHERE version is null;--> statement-breakpoint
CREATE INDEX "revocations_expires_at_idx" ON "revocations" USING btree ("expires_at");--> statement-breakpoint
CREATE INDEX "seen_tokens_expires_at_idx" ON "seen_tokens" USING btree ("expires_at");--> statement-breakpoint
-- Clients in use are cached under the default environment, as API keys are, and so are access tokens that were revoked
-- one by one. A client is also another one when its secrets or the state of its account change.
CREATE FUNCTION "clients_changed"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM "record_policy_change"('00000000-0000-7000-8000-000000000001', 'client', array_agg("id"::text))
    FROM "changed_rows" HAVING count(*) > 0;
  RETURN NULL;
END $$;--> statement-breakpoint
CREATE TRIGGER "clients_updated" AFTER UPDATE ON "clients" REFERENCING NEW TABLE AS "changed_rows"
  FOR EACH STATEMENT EXECUTE FUNCTION "clients_changed"();--> statement-breakpoint
CREATE TRIGGER "clients_deleted" AFTER DELETE ON "clients" REFERENCING OLD TABLE AS "changed_rows"
  FOR EACH STATEMENT EXECUTE FUNCTION "clients_changed"();--> statement-breakpoint
CREATE FUNCTION "client_secrets_changed"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM "record_policy_change"('00000000-0000-7000-8000-000000000001', 'client', array_agg(DISTINCT "client_id"::text))
    FROM "changed_rows" HAVING count(*) > 0;
  RETURN NULL;
END $$;--> statement-breakpoint
CREATE TRIGGER "client_secrets_inserted" AFTER INSERT ON "client_secrets" REFERENCING NEW TABLE AS "changed_rows"
  FOR EACH STATEMENT EXECUTE FUNCTION "client_secrets_changed"();--> statement-breakpoint
CREATE TRIGGER "client_secrets_updated" AFTER UPDATE ON "client_secrets" REFERENCING NEW TABLE AS "changed_rows"
  FOR EACH STATEMENT EXECUTE FUNCTION "client_secrets_changed"();--> statement-breakpoint
CREATE TRIGGER "client_secrets_deleted" AFTER DELETE ON "client_secrets" REFERENCING OLD TABLE AS "changed_rows"
  FOR EACH STATEMENT EXECUTE FUNCTION "client_secrets_changed"();--> statement-breakpoint
CREATE FUNCTION "clients_of_accounts_changed"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM "record_policy_change"('00000000-0000-7000-8000-000000000001', 'client', array_agg(c."id"::text))
    FROM "changed_rows" n JOIN "old_rows" o ON o."id" = n."id" JOIN "clients" c ON c."account_id" = n."id"
    WHERE (n."is_active", n."deleted_at") IS DISTINCT FROM (o."is_active", o."deleted_at")
    HAVING count(*) > 0;
  RETURN NULL;
END $$;--> statement-breakpoint
CREATE TRIGGER "accounts_updated_clients" AFTER UPDATE ON "accounts" REFERENCING NEW TABLE AS "changed_rows" OLD TABLE AS "old_rows"
  FOR EACH STATEMENT EXECUTE FUNCTION "clients_of_accounts_changed"();--> statement-breakpoint
CREATE FUNCTION "tokens_revoked"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM "record_policy_change"('00000000-0000-7000-8000-000000000001', 'token', array_agg("ref"))
    FROM "changed_rows" WHERE "kind" = 'token' HAVING count(*) > 0;
  RETURN NULL;
END $$;--> statement-breakpoint
CREATE TRIGGER "revocations_inserted_tokens" AFTER INSERT ON "revocations" REFERENCING NEW TABLE AS "changed_rows"
  FOR EACH STATEMENT EXECUTE FUNCTION "tokens_revoked"();--> statement-breakpoint
-- The subject of a client's own tokens is its id: it must never be that of a person (RFC 9700 4.15).
CREATE FUNCTION "clients_are_no_users"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF EXISTS (SELECT FROM "users" WHERE "id" = NEW."id") THEN
    RAISE unique_violation USING CONSTRAINT = 'clients_id_user_id_key', MESSAGE = 'a user has this id';
  END IF;
  RETURN NEW;
END $$;--> statement-breakpoint
CREATE TRIGGER "clients_id_user_id" BEFORE INSERT ON "clients" FOR EACH ROW EXECUTE FUNCTION "clients_are_no_users"();--> statement-breakpoint
INSERT INTO "revocation_feed" ("epoch") VALUES (left(replace(gen_random_uuid()::text, '-', ''), 12));--> statement-breakpoint
-- What ends tokens before they expire is written down by triggers, so that no write can forget it. At the end of the
-- transaction the rows get the next versions: the row lock of the one counter makes commit order version order.
CREATE FUNCTION "seal_revocations"() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  unsealed bigint;
  sealed bigint;
BEGIN
  PERFORM 1 FROM "revocations" WHERE "id" = NEW."id" AND "version" IS NULL;
  IF NOT FOUND THEN RETURN NULL; END IF;
  -- Policy versions are always locked before this counter, whichever the transaction wrote first: no deadlock.
  PERFORM 1 FROM "policy_versions" WHERE "environment_id" IN (
      SELECT "environment_id" FROM "policy_changes" WHERE "transaction_id" = pg_current_xact_id() AND "version" IS NULL)
    ORDER BY "environment_id" FOR UPDATE;
  SELECT count(*) INTO unsealed FROM "revocations" WHERE "transaction_id" = pg_current_xact_id() AND "version" IS NULL;
  UPDATE "revocation_feed" SET "version" = "version" + unsealed RETURNING "version" INTO sealed;
  UPDATE "revocations" r SET "version" = sealed - unsealed + o."place"
    FROM (
      SELECT "id", row_number() OVER (ORDER BY "id") AS "place" FROM "revocations"
      WHERE "transaction_id" = pg_current_xact_id() AND "version" IS NULL
    ) o WHERE r."id" = o."id";
  PERFORM pg_notify('postern_revocations', sealed::text);
  RETURN NULL;
END $$;--> statement-breakpoint
CREATE CONSTRAINT TRIGGER "revocations_seal" AFTER INSERT ON "revocations"
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION "seal_revocations"();--> statement-breakpoint
-- Until when a token that is issued now can live. The minute is for clocks that differ.
CREATE FUNCTION "last_token_expires_at"() RETURNS timestamptz LANGUAGE sql VOLATILE AS $$
  SELECT clock_timestamp() + make_interval(secs => "token_lifetime_seconds" + 60) FROM "revocation_feed"
$$;--> statement-breakpoint
CREATE FUNCTION "session_revoked"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO "revocations" ("kind", "ref", "expires_at") VALUES ('session', OLD."id"::text, "last_token_expires_at"());
  RETURN NULL;
END $$;--> statement-breakpoint
CREATE TRIGGER "sessions_ended" AFTER UPDATE OF "ended_at" ON "sessions" FOR EACH ROW
  WHEN (OLD."ended_at" IS NULL AND NEW."ended_at" IS NOT NULL) EXECUTE FUNCTION "session_revoked"();--> statement-breakpoint
-- With its user, account or environment. One that has expired is only cleared away.
CREATE TRIGGER "sessions_deleted" AFTER DELETE ON "sessions" FOR EACH ROW
  WHEN (OLD."ended_at" IS NULL AND least(OLD."expires_at", OLD."idle_expires_at") > now()) EXECUTE FUNCTION "session_revoked"();--> statement-breakpoint
CREATE FUNCTION "users_revoked"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO "revocations" ("kind", "ref", "token_version", "expires_at")
    SELECT 'user', n."id"::text, greatest(n."token_version", o."token_version" + 1), (SELECT "last_token_expires_at"())
    FROM "changed_rows" n JOIN "old_rows" o ON o."id" = n."id"
    WHERE (n."token_version" > o."token_version" OR (o."is_active" AND NOT n."is_active")
        OR (o."deleted_at" IS NULL AND n."deleted_at" IS NOT NULL))
      AND EXISTS (SELECT FROM "sessions" s WHERE s."user_id" = n."id" AND s."ended_at" IS NULL AND s."expires_at" > now());
  RETURN NULL;
END $$;--> statement-breakpoint
CREATE TRIGGER "users_revoked" AFTER UPDATE ON "users" REFERENCING NEW TABLE AS "changed_rows" OLD TABLE AS "old_rows"
  FOR EACH STATEMENT EXECUTE FUNCTION "users_revoked"();--> statement-breakpoint
CREATE FUNCTION "client_revoked"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO "revocations" ("kind", "ref", "token_version", "expires_at") VALUES ('client', OLD."id"::text,
    CASE TG_OP WHEN 'DELETE' THEN OLD."token_version" + 1 ELSE greatest(NEW."token_version", OLD."token_version" + 1) END,
    "last_token_expires_at"());
  RETURN NULL;
END $$;--> statement-breakpoint
CREATE TRIGGER "clients_revoked" AFTER UPDATE ON "clients" FOR EACH ROW
  WHEN (NEW."token_version" > OLD."token_version" OR (OLD."is_active" AND NOT NEW."is_active"))
  EXECUTE FUNCTION "client_revoked"();--> statement-breakpoint
CREATE TRIGGER "clients_deleted_revoked" AFTER DELETE ON "clients" FOR EACH ROW EXECUTE FUNCTION "client_revoked"();--> statement-breakpoint
-- An account that is switched off or deleted ends the sessions and the tokens that are for it, and no others.
CREATE FUNCTION "account_closed"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  UPDATE "sessions" SET "ended_at" = now(), "end_reason" = 'account_closed'
    WHERE "account_id" = NEW."id" AND "ended_at" IS NULL AND "expires_at" > now();
  UPDATE "clients" SET "token_version" = "token_version" + 1 WHERE "account_id" = NEW."id";
  RETURN NULL;
END $$;--> statement-breakpoint
CREATE TRIGGER "accounts_closed" AFTER UPDATE ON "accounts" FOR EACH ROW
  WHEN ((OLD."is_active" AND NOT NEW."is_active") OR (OLD."deleted_at" IS NULL AND NEW."deleted_at" IS NOT NULL))
  EXECUTE FUNCTION "account_closed"();--> statement-breakpoint
INSERT INTO "schema_compatibility" ("version", "min_code") VALUES (4, 2);
