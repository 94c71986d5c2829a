-- The life of a user: second factors, mails, invitations, erasure; the sealed audit trail and webhooks.
CREATE TABLE "account_invitations" (
	"id" uuid PRIMARY KEY NOT NULL,
	"environment_id" uuid NOT NULL,
	"account_id" uuid NOT NULL,
	"role_id" uuid NOT NULL,
	"email" text NOT NULL,
	"email_normalized" text NOT NULL,
	"token_hash" text NOT NULL,
	"invited_by_type" text NOT NULL,
	"invited_by_id" text,
	"status" text DEFAULT 'pending' NOT NULL,
	"accepted_by_user_id" uuid,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"updated_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"expires_at" timestamp (3) with time zone NOT NULL,
	CONSTRAINT "account_invitations_token_hash_key" UNIQUE("token_hash"),
	CONSTRAINT "account_invitations_status_check" CHECK ("account_invitations"."status" in ('pending', 'accepted', 'revoked'))
);
--> statement-breakpoint
CREATE TABLE "audit_chain" (
	"position" bigint PRIMARY KEY NOT NULL,
	"audit_event_id" uuid NOT NULL,
	"hash" text NOT NULL,
	"sealed_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "audit_chain_audit_event_id_key" UNIQUE("audit_event_id"),
	CONSTRAINT "audit_chain_position_check" CHECK ("audit_chain"."position" > 0)
);
--> statement-breakpoint
CREATE TABLE "audit_checkpoints" (
	"id" uuid NOT NULL,
	"position" bigint PRIMARY KEY NOT NULL,
	"hash" text NOT NULL,
	"removed_up_to" bigint DEFAULT 0 NOT NULL,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"signature" text NOT NULL
);
--> statement-breakpoint
CREATE TABLE "challenges" (
	"id" uuid PRIMARY KEY NOT NULL,
	"environment_id" uuid NOT NULL,
	"kind" text NOT NULL,
	"user_id" uuid,
	"session_id" uuid,
	"token_hash" text NOT NULL,
	"data" jsonb DEFAULT '{}'::jsonb NOT NULL,
	"failures" integer DEFAULT 0 NOT NULL,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"expires_at" timestamp (3) with time zone NOT NULL,
	CONSTRAINT "challenges_token_hash_key" UNIQUE("token_hash")
);
--> statement-breakpoint
CREATE TABLE "mail_tokens" (
	"id" uuid PRIMARY KEY NOT NULL,
	"environment_id" uuid NOT NULL,
	"user_id" uuid NOT NULL,
	"kind" text NOT NULL,
	"token_hash" text NOT NULL,
	"data_sealed" text,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"expires_at" timestamp (3) with time zone NOT NULL,
	CONSTRAINT "mail_tokens_token_hash_key" UNIQUE("token_hash")
);
--> statement-breakpoint
CREATE TABLE "passkeys" (
	"id" uuid PRIMARY KEY NOT NULL,
	"environment_id" uuid NOT NULL,
	"user_id" uuid NOT NULL,
	"credential_id" text NOT NULL,
	"public_key" text NOT NULL,
	"counter" bigint DEFAULT 0 NOT NULL,
	"transports" text[] DEFAULT '{}' NOT NULL,
	"device_type" text NOT NULL,
	"is_backed_up" boolean DEFAULT false NOT NULL,
	"is_user_verifying" boolean DEFAULT false NOT NULL,
	"aaguid" text,
	"name" text NOT NULL,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"last_used_at" timestamp (3) with time zone,
	CONSTRAINT "passkeys_credential_id_key" UNIQUE("credential_id"),
	CONSTRAINT "passkeys_device_type_check" CHECK ("passkeys"."device_type" in ('singleDevice', 'multiDevice'))
);
--> statement-breakpoint
CREATE TABLE "recovery_codes" (
	"environment_id" uuid NOT NULL,
	"user_id" uuid NOT NULL,
	"code_hash" text NOT NULL,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"used_at" timestamp (3) with time zone,
	CONSTRAINT "recovery_codes_pkey" PRIMARY KEY("user_id","code_hash")
);
--> statement-breakpoint
CREATE TABLE "totp_factors" (
	"id" uuid PRIMARY KEY NOT NULL,
	"environment_id" uuid NOT NULL,
	"user_id" uuid NOT NULL,
	"secret_sealed" text NOT NULL,
	"last_step" bigint,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"confirmed_at" timestamp (3) with time zone,
	"last_used_at" timestamp (3) with time zone
);
--> statement-breakpoint
CREATE TABLE "webhook_deliveries" (
	"id" uuid PRIMARY KEY NOT NULL,
	"webhook_id" uuid NOT NULL,
	"audit_event_id" uuid NOT NULL,
	"event" text NOT NULL,
	"subject" text NOT NULL,
	"sequence" bigint GENERATED ALWAYS AS IDENTITY (sequence name "webhook_deliveries_sequence_seq" INCREMENT BY 1 MINVALUE 1 MAXVALUE 9223372036854775807 START WITH 1 CACHE 1),
	"status" text DEFAULT 'pending' NOT NULL,
	"attempts" integer DEFAULT 0 NOT NULL,
	"next_attempt_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"last_status" integer,
	"last_error" text,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"delivered_at" timestamp (3) with time zone,
	CONSTRAINT "webhook_deliveries_status_check" CHECK ("webhook_deliveries"."status" in ('pending', 'delivered', 'failed'))
);
--> statement-breakpoint
CREATE TABLE "webhooks" (
	"id" uuid PRIMARY KEY NOT NULL,
	"environment_id" uuid NOT NULL,
	"url" text NOT NULL,
	"description" text,
	"events" text[] NOT NULL,
	"account_id" uuid,
	"secret_sealed" text NOT NULL,
	"previous_secret_sealed" text,
	"previous_secret_expires_at" timestamp (3) with time zone,
	"is_active" boolean DEFAULT true NOT NULL,
	"disabled_reason" text,
	"failures" integer DEFAULT 0 NOT NULL,
	"failing_since" timestamp (3) with time zone,
	"paused_until" timestamp (3) with time zone,
	"revision" integer DEFAULT 1 NOT NULL,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"updated_at" timestamp (3) with time zone DEFAULT now() NOT NULL
);
--> statement-breakpoint
ALTER TABLE "user_credentials" ALTER COLUMN "password_hash" DROP NOT NULL;--> statement-breakpoint
ALTER TABLE "user_credentials" ADD COLUMN "password_changed_at" timestamp (3) with time zone DEFAULT now() NOT NULL;--> statement-breakpoint
ALTER TABLE "accounts" ADD COLUMN "is_mfa_required" boolean DEFAULT false NOT NULL;--> statement-breakpoint
ALTER TABLE "accounts" ADD COLUMN "opened_by_user_id" uuid;--> statement-breakpoint
ALTER TABLE "roles" ADD COLUMN "is_mfa_required" boolean DEFAULT false NOT NULL;--> statement-breakpoint
ALTER TABLE "sessions" ADD COLUMN "amr" text[] DEFAULT '{pwd}' NOT NULL;--> statement-breakpoint
ALTER TABLE "sessions" ADD COLUMN "authenticated_at" timestamp (3) with time zone DEFAULT now() NOT NULL;--> statement-breakpoint
UPDATE "sessions" SET "authenticated_at" = "created_at";--> statement-breakpoint
ALTER TABLE "login_attempts" ADD COLUMN "consecutive" integer DEFAULT 0 NOT NULL;--> statement-breakpoint
ALTER TABLE "users" ADD COLUMN "erased_at" timestamp (3) with time zone;--> statement-breakpoint
ALTER TABLE "account_invitations" ADD CONSTRAINT "account_invitations_account_id_fkey" FOREIGN KEY ("environment_id","account_id") REFERENCES "public"."accounts"("environment_id","id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "account_invitations" ADD CONSTRAINT "account_invitations_role_id_fkey" FOREIGN KEY ("environment_id","role_id") REFERENCES "public"."roles"("environment_id","id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "challenges" ADD CONSTRAINT "challenges_user_id_fkey" FOREIGN KEY ("environment_id","user_id") REFERENCES "public"."users"("environment_id","id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "mail_tokens" ADD CONSTRAINT "mail_tokens_user_id_fkey" FOREIGN KEY ("environment_id","user_id") REFERENCES "public"."users"("environment_id","id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "passkeys" ADD CONSTRAINT "passkeys_user_id_fkey" FOREIGN KEY ("environment_id","user_id") REFERENCES "public"."users"("environment_id","id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "recovery_codes" ADD CONSTRAINT "recovery_codes_user_id_fkey" FOREIGN KEY ("environment_id","user_id") REFERENCES "public"."users"("environment_id","id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "totp_factors" ADD CONSTRAINT "totp_factors_user_id_fkey" FOREIGN KEY ("environment_id","user_id") REFERENCES "public"."users"("environment_id","id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "webhook_deliveries" ADD CONSTRAINT "webhook_deliveries_webhook_id_webhooks_id_fk" FOREIGN KEY ("webhook_id") REFERENCES "public"."webhooks"("id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "webhooks" ADD CONSTRAINT "webhooks_environment_id_environments_id_fk" FOREIGN KEY ("environment_id") REFERENCES "public"."environments"("id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "webhooks" ADD CONSTRAINT "webhooks_account_id_fkey" FOREIGN KEY ("environment_id","account_id") REFERENCES "public"."accounts"("environment_id","id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
CREATE INDEX "accounts_opened_by_user_id_idx" ON "accounts" USING btree ("opened_by_user_id") WHERE opened_by_user_id is not null and deleted_at is null;--> statement-breakpoint
CREATE UNIQUE INDEX "account_invitations_pending_key" ON "account_invitations" USING btree ("account_id","email_normalized") WHERE status = 'pending';--> statement-breakpoint
CREATE INDEX "account_invitations_list_idx" ON "account_invitations" USING btree ("account_id","id");--> statement-breakpoint
CREATE INDEX "account_invitations_role_id_idx" ON "account_invitations" USING btree ("role_id");--> statement-breakpoint
CREATE INDEX "account_invitations_email_idx" ON "account_invitations" USING btree ("environment_id","email_normalized");--> statement-breakpoint
CREATE INDEX "challenges_expires_at_idx" ON "challenges" USING btree ("expires_at");--> statement-breakpoint
CREATE INDEX "challenges_user_id_idx" ON "challenges" USING btree ("user_id");--> statement-breakpoint
CREATE INDEX "mail_tokens_user_id_idx" ON "mail_tokens" USING btree ("user_id","kind");--> statement-breakpoint
CREATE INDEX "mail_tokens_expires_at_idx" ON "mail_tokens" USING btree ("expires_at");--> statement-breakpoint
CREATE INDEX "passkeys_user_id_idx" ON "passkeys" USING btree ("user_id");--> statement-breakpoint
CREATE UNIQUE INDEX "totp_factors_confirmed_key" ON "totp_factors" USING btree ("user_id") WHERE confirmed_at is not null;--> statement-breakpoint
CREATE UNIQUE INDEX "totp_factors_pending_key" ON "totp_factors" USING btree ("user_id") WHERE confirmed_at is null;--> statement-breakpoint
CREATE INDEX "users_gone_key_idx" ON "users" USING btree ("environment_id","key") WHERE deleted_at is not null;--> statement-breakpoint
CREATE INDEX "webhook_deliveries_due_idx" ON "webhook_deliveries" USING btree ("webhook_id","next_attempt_at","sequence") WHERE status = 'pending';--> statement-breakpoint
CREATE INDEX "webhook_deliveries_subject_idx" ON "webhook_deliveries" USING btree ("webhook_id","subject","sequence") WHERE status = 'pending';--> statement-breakpoint
CREATE INDEX "webhook_deliveries_list_idx" ON "webhook_deliveries" USING btree ("webhook_id","sequence");--> statement-breakpoint
CREATE INDEX "webhook_deliveries_failed_idx" ON "webhook_deliveries" USING btree ("webhook_id") WHERE status = 'failed';--> statement-breakpoint
CREATE INDEX "webhook_deliveries_created_at_idx" ON "webhook_deliveries" USING btree ("created_at");--> statement-breakpoint
DROP INDEX "sessions_expires_at_idx";--> statement-breakpoint
CREATE INDEX "sessions_end_idx" ON "sessions" USING btree (least(expires_at, ended_at));--> statement-breakpoint
CREATE INDEX "webhooks_list_idx" ON "webhooks" USING btree ("environment_id","id");--> statement-breakpoint
CREATE INDEX "users_erasable_idx" ON "users" USING btree ("deleted_at") WHERE deleted_at is not null and erased_at is null;--> statement-breakpoint
CREATE INDEX "users_erased_at_idx" ON "users" USING btree ("erased_at") WHERE erased_at is not null;--> statement-breakpoint
CREATE TABLE "audit_unsealed" (
	"audit_event_id" uuid PRIMARY KEY NOT NULL,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL
);
--> statement-breakpoint
ALTER TABLE "audit_personal_data" ADD COLUMN "email_normalized" text;--> statement-breakpoint
-- As the application writes it from now on, for addresses in ASCII; its folding of others SQL does not have.
UPDATE "audit_personal_data" SET "email_normalized" = lower(btrim("data" ->> 'email') COLLATE "C")
  WHERE "subject_id" IS NULL AND "data" ->> 'email' IS NOT NULL;--> statement-breakpoint
CREATE INDEX "audit_personal_data_email_idx" ON "audit_personal_data" USING btree ("email_normalized") WHERE subject_id is null;--> statement-breakpoint
-- No refusal of before is counted up any more; before the triggers, so that sealing does not have to do it.
UPDATE "audit_events" SET "repeat_key" = NULL WHERE "repeat_key" IS NOT NULL;--> statement-breakpoint
-- Every event waits to be sealed from its transaction on, so that none can be left out of the chain.
INSERT INTO "audit_unsealed" ("audit_event_id") SELECT "id" FROM "audit_events";--> statement-breakpoint
CREATE FUNCTION "audit_events_wait"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO "audit_unsealed" ("audit_event_id") SELECT "id" FROM "new_rows" ON CONFLICT DO NOTHING;
  RETURN NULL;
END $$;--> statement-breakpoint
CREATE TRIGGER "audit_events_inserted" AFTER INSERT ON "audit_events" REFERENCING NEW TABLE AS "new_rows"
  FOR EACH STATEMENT EXECUTE FUNCTION "audit_events_wait"();--> statement-breakpoint
-- The trail is kept as it was written. What raises the count of an open refusal may go on, and so may what announces
-- itself as retention; whoever has SQL can do that too, which the chain then shows.
CREATE FUNCTION "audit_trail_is_kept"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF current_setting('postern.audit_retention', true) = 'on' THEN
    IF TG_OP = 'DELETE' THEN RETURN OLD; END IF;
    RETURN NEW;
  END IF;
  IF TG_OP = 'UPDATE' AND TG_TABLE_NAME = 'audit_events' THEN
    IF to_jsonb(NEW) - 'repeat_key' - 'repeat_count' = to_jsonb(OLD) - 'repeat_key' - 'repeat_count'
        AND NOT EXISTS (SELECT FROM "audit_chain" WHERE "audit_event_id" = OLD."id") THEN
      RETURN NEW;
    END IF;
  END IF;
  RAISE EXCEPTION 'the audit trail is kept as it was written' USING ERRCODE = 'integrity_constraint_violation';
END $$;--> statement-breakpoint
CREATE TRIGGER "audit_events_kept" BEFORE UPDATE OR DELETE ON "audit_events" FOR EACH ROW EXECUTE FUNCTION "audit_trail_is_kept"();--> statement-breakpoint
CREATE TRIGGER "audit_chain_kept" BEFORE UPDATE OR DELETE ON "audit_chain" FOR EACH ROW EXECUTE FUNCTION "audit_trail_is_kept"();--> statement-breakpoint
CREATE TRIGGER "audit_checkpoints_kept" BEFORE UPDATE OR DELETE ON "audit_checkpoints" FOR EACH ROW EXECUTE FUNCTION "audit_trail_is_kept"();--> statement-breakpoint
CREATE TRIGGER "audit_events_not_emptied" BEFORE TRUNCATE ON "audit_events" FOR EACH STATEMENT EXECUTE FUNCTION "audit_trail_is_kept"();--> statement-breakpoint
CREATE TRIGGER "audit_chain_not_emptied" BEFORE TRUNCATE ON "audit_chain" FOR EACH STATEMENT EXECUTE FUNCTION "audit_trail_is_kept"();--> statement-breakpoint
CREATE TRIGGER "audit_checkpoints_not_emptied" BEFORE TRUNCATE ON "audit_checkpoints" FOR EACH STATEMENT EXECUTE FUNCTION "audit_trail_is_kept"();--> statement-breakpoint
-- What webhooks ask for is put into their outbox in the transaction of the change, whoever writes its event.
CREATE FUNCTION "audit_events_published"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM "webhooks" WHERE "is_active") THEN RETURN NULL; END IF;
  INSERT INTO "webhook_deliveries" ("id", "webhook_id", "audit_event_id", "event", "subject")
    SELECT gen_random_uuid(), "webhook_id", "id", "action", concat_ws(':', "target_type", "target_id")
    FROM (
      -- One that is being deleted is waited for, and then passed over; its foreign key would refuse the event.
      SELECT w."id" AS "webhook_id", e."id", e."action", e."target_type", e."target_id"
      FROM "new_rows" e JOIN "webhooks" w ON w."environment_id" = e."environment_id" AND w."is_active"
        AND (w."account_id" IS NULL OR w."account_id" = e."account_id")
        AND (e."action" = ANY (w."events") OR '*' = ANY (w."events"))
      WHERE e."outcome" = 'success' FOR KEY SHARE OF w
    ) published ORDER BY "id";
  RETURN NULL;
END $$;--> statement-breakpoint
CREATE TRIGGER "audit_events_published" AFTER INSERT ON "audit_events" REFERENCING NEW TABLE AS "new_rows"
  FOR EACH STATEMENT EXECUTE FUNCTION "audit_events_published"();--> statement-breakpoint
-- A link in a mail is void as soon as what it was sent for has changed, whoever changes it: the address, the activity,
-- the password. Another address is one that nobody has confirmed; one that differs in the case of ASCII letters only is
-- the same mailbox.
CREATE FUNCTION "users_end_mail_links"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  DELETE FROM "mail_tokens" WHERE "user_id" = NEW."id";
  IF lower(NEW."email" COLLATE "C") IS DISTINCT FROM lower(OLD."email" COLLATE "C") THEN
    UPDATE "user_credentials" SET "email_verified_at" = NULL
      WHERE "user_id" = NEW."id" AND "email_verified_at" IS NOT NULL;
  END IF;
  RETURN NULL;
END $$;--> statement-breakpoint
CREATE TRIGGER "users_end_mail_links" AFTER UPDATE ON "users" FOR EACH ROW
  WHEN (lower(NEW."email" COLLATE "C") IS DISTINCT FROM lower(OLD."email" COLLATE "C") OR (OLD."is_active" AND NOT NEW."is_active"))
  EXECUTE FUNCTION "users_end_mail_links"();--> statement-breakpoint
CREATE FUNCTION "credentials_end_mail_links"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  DELETE FROM "mail_tokens" WHERE "user_id" = NEW."user_id" AND "kind" <> 'email_verification';
  RETURN NULL;
END $$;--> statement-breakpoint
CREATE TRIGGER "user_credentials_end_mail_links" AFTER UPDATE ON "user_credentials" FOR EACH ROW
  WHEN (NEW."credentials_changed_at" IS DISTINCT FROM OLD."credentials_changed_at")
  EXECUTE FUNCTION "credentials_end_mail_links"();--> statement-breakpoint
-- A refresh may move a session to another account. What it had for the one that is closed ends with the version of its
-- holder; whoever is a member and was refreshed elsewhere, as long as such a token may live, refreshes once more. Rows of
-- users are locked in the order of their ids. A refresh token that is presented again moves a session as well, up to five
-- minutes after the refresh that it repeats; the last minute is for clocks that differ.
CREATE OR REPLACE FUNCTION "account_closed"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  UPDATE "sessions" SET "ended_at" = now(), "end_reason" = 'account_closed'
    WHERE "account_id" = NEW."id" AND "ended_at" IS NULL AND "expires_at" > now();
  UPDATE "users" u SET "token_version" = u."token_version" + 1
    FROM (
      SELECT "id" FROM "users" WHERE "id" IN (
        SELECT m."user_id" FROM "account_members" m JOIN "sessions" s ON s."user_id" = m."user_id"
        WHERE m."account_id" = NEW."id" AND s."account_id" IS DISTINCT FROM NEW."id" AND s."ended_at" IS NULL
          AND s."refreshed_at" > now() - (SELECT make_interval(secs => "token_lifetime_seconds" + 360) FROM "revocation_feed"))
      ORDER BY "id" FOR NO KEY UPDATE
    ) elsewhere WHERE u."id" = elsewhere."id";
  UPDATE "clients" SET "token_version" = "token_version" + 1 WHERE "account_id" = NEW."id";
  RETURN NULL;
END $$;--> statement-breakpoint
INSERT INTO "schema_compatibility" ("version", "min_code") VALUES (5, 2);--> statement-breakpoint
-- Members of an account in the order in which they joined, as Permit's API lists them.
CREATE INDEX "account_members_joined_idx" ON "account_members" USING btree ("account_id","created_at","user_id");--> statement-breakpoint
CREATE INDEX "accounts_gone_key_idx" ON "accounts" USING btree ("environment_id","key") WHERE deleted_at is not null;--> statement-breakpoint
CREATE TABLE "gone_roles" (
	"environment_id" uuid NOT NULL,
	"name" text NOT NULL,
	CONSTRAINT "gone_roles_pkey" PRIMARY KEY("environment_id","name")
);
--> statement-breakpoint
ALTER TABLE "gone_roles" ADD CONSTRAINT "gone_roles_environment_id_environments_id_fk" FOREIGN KEY ("environment_id") REFERENCES "public"."environments"("id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
-- The name of a role is remembered when it goes, so that what was taken over to Permit under it can be taken away there.
-- Of an environment that goes itself nothing is.
CREATE FUNCTION "role_gone"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO "gone_roles" ("environment_id", "name")
    SELECT e."id", concat_ws('#', t."key", OLD."key") FROM "environments" e
    LEFT JOIN "resources" t ON t."id" = OLD."resource_id"
    WHERE e."id" = OLD."environment_id" AND (OLD."resource_id" IS NULL OR t."id" IS NOT NULL)
    ON CONFLICT DO NOTHING;
  RETURN NULL;
END $$;--> statement-breakpoint
CREATE TRIGGER "roles_gone" AFTER DELETE ON "roles" FOR EACH ROW WHEN (NOT OLD."is_builtin") EXECUTE FUNCTION "role_gone"();--> statement-breakpoint
-- A resource takes its roles along, which then no longer know what it was called.
CREATE FUNCTION "resource_gone"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO "gone_roles" ("environment_id", "name")
    SELECT e."id", concat_ws('#', OLD."key", r."key") FROM "environments" e
    JOIN "roles" r ON r."environment_id" = e."id" AND r."resource_id" = OLD."id"
    WHERE e."id" = OLD."environment_id" ORDER BY r."key"
    ON CONFLICT DO NOTHING;
  RETURN OLD;
END $$;--> statement-breakpoint
CREATE TRIGGER "resources_gone" BEFORE DELETE ON "resources" FOR EACH ROW WHEN (NOT OLD."is_builtin") EXECUTE FUNCTION "resource_gone"();--> statement-breakpoint
-- Permit's API shows an API key with the level of access that it was asked for.
ALTER TABLE "api_keys" ADD COLUMN "is_called_write" boolean DEFAULT false NOT NULL;--> statement-breakpoint
ALTER TABLE "api_keys" ADD CONSTRAINT "api_keys_called_write_check" CHECK (not "api_keys"."is_called_write" or ("api_keys"."access" = 'full' and "api_keys"."level" = 'environment'));--> statement-breakpoint
-- A signing key that was withdrawn by force is told to verifiers elsewhere, as what ends all tokens that it has signed.
ALTER TABLE "revocations" DROP CONSTRAINT "revocations_kind_check";--> statement-breakpoint
ALTER TABLE "revocations" ADD CONSTRAINT "revocations_kind_check" CHECK ("revocations"."kind" in ('session', 'token', 'user', 'client', 'key'));
