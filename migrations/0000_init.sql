-- The first schema: environments, accounts, people, roles, keys, sessions, audit. Locks: none, all tables are new.
-- pg_trgm is a trusted extension (Postgres 13+): the owner of the database may create it.
CREATE EXTENSION IF NOT EXISTS pg_trgm;--> statement-breakpoint
CREATE TABLE "account_members" (
	"environment_id" uuid NOT NULL,
	"account_id" uuid NOT NULL,
	"user_id" uuid NOT NULL,
	"status" text DEFAULT 'active' NOT NULL,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "account_members_pkey" PRIMARY KEY("account_id","user_id"),
	CONSTRAINT "account_members_environment_key" UNIQUE("environment_id","account_id","user_id"),
	CONSTRAINT "account_members_status_check" CHECK ("account_members"."status" in ('active', 'pending'))
);
--> statement-breakpoint
CREATE TABLE "accounts" (
	"id" uuid PRIMARY KEY NOT NULL,
	"environment_id" uuid NOT NULL,
	"key" text NOT NULL,
	"name" text NOT NULL,
	"description" text,
	"is_active" boolean DEFAULT true NOT NULL,
	"plan_id" uuid,
	"current_subscription_ends" timestamp (3) with time zone,
	"attributes" jsonb,
	"search_text" text NOT NULL,
	"revision" integer DEFAULT 1 NOT NULL,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"updated_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"deleted_at" timestamp (3) with time zone,
	CONSTRAINT "accounts_environment_id_id_key" UNIQUE("environment_id","id"),
	CONSTRAINT "accounts_key_check" CHECK ("accounts"."key" ~ '^[A-Za-z0-9_-]+$')
);
--> statement-breakpoint
CREATE TABLE "actions" (
	"id" uuid PRIMARY KEY NOT NULL,
	"environment_id" uuid NOT NULL,
	"resource_id" uuid NOT NULL,
	"key" text NOT NULL,
	"name" text NOT NULL,
	"description" text,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "actions_environment_id_id_key" UNIQUE("environment_id","id"),
	CONSTRAINT "actions_key_key" UNIQUE("resource_id","key"),
	CONSTRAINT "actions_key_check" CHECK ("actions"."key" ~ '^[A-Za-z0-9_-]+$')
);
--> statement-breakpoint
CREATE TABLE "api_keys" (
	"id" uuid PRIMARY KEY NOT NULL,
	"name" text NOT NULL,
	"level" text NOT NULL,
	"access" text NOT NULL,
	"project" text,
	"environment_id" uuid,
	"key_hash" text NOT NULL,
	"key_hint" text NOT NULL,
	"created_by_type" text NOT NULL,
	"created_by_id" text,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"last_used_at" timestamp (3) with time zone,
	"expires_at" timestamp (3) with time zone,
	"revoked_at" timestamp (3) with time zone,
	CONSTRAINT "api_keys_key_hash_key" UNIQUE("key_hash"),
	CONSTRAINT "api_keys_level_check" CHECK ("api_keys"."level" in ('org', 'project', 'environment')),
	CONSTRAINT "api_keys_access_check" CHECK ("api_keys"."access" in ('full', 'read')),
	CONSTRAINT "api_keys_environment_check" CHECK (("api_keys"."level" = 'environment') = ("api_keys"."environment_id" is not null)),
	CONSTRAINT "api_keys_project_check" CHECK (("api_keys"."level" = 'project') = ("api_keys"."project" is not null))
);
--> statement-breakpoint
CREATE TABLE "audit_events" (
	"id" uuid PRIMARY KEY NOT NULL,
	"environment_id" uuid NOT NULL,
	"occurred_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"action" text NOT NULL,
	"outcome" text NOT NULL,
	"actor_type" text NOT NULL,
	"actor_id" text,
	"target_type" text,
	"target_id" text,
	"account_id" uuid,
	"request_id" text,
	"details" jsonb NOT NULL,
	"personal_commitment" text,
	"repeat_key" text,
	"repeat_count" integer DEFAULT 1 NOT NULL,
	CONSTRAINT "audit_events_repeat_key_key" UNIQUE("repeat_key"),
	CONSTRAINT "audit_events_outcome_check" CHECK ("audit_events"."outcome" in ('success', 'refused'))
);
--> statement-breakpoint
CREATE TABLE "audit_personal_data" (
	"audit_event_id" uuid PRIMARY KEY NOT NULL,
	"subject_id" uuid,
	"salt" text NOT NULL,
	"data" jsonb NOT NULL
);
--> statement-breakpoint
CREATE TABLE "environments" (
	"id" uuid PRIMARY KEY NOT NULL,
	"project" text NOT NULL,
	"key" text NOT NULL,
	"name" text NOT NULL,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "environments_project_key_key" UNIQUE("project","key")
);
--> statement-breakpoint
CREATE TABLE "login_attempts" (
	"kind" text NOT NULL,
	"key_hash" text NOT NULL,
	"failures" integer NOT NULL,
	"blocked_until" timestamp (3) with time zone,
	"is_admitted" boolean DEFAULT true NOT NULL,
	"counted_since" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"last_attempt_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "login_attempts_pkey" PRIMARY KEY("kind","key_hash")
);
--> statement-breakpoint
CREATE TABLE "policy_versions" (
	"environment_id" uuid PRIMARY KEY NOT NULL,
	"version" bigint DEFAULT 1 NOT NULL
);
--> statement-breakpoint
CREATE TABLE "resources" (
	"id" uuid PRIMARY KEY NOT NULL,
	"environment_id" uuid NOT NULL,
	"key" text NOT NULL,
	"name" text NOT NULL,
	"description" text,
	"is_builtin" boolean DEFAULT false NOT NULL,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"updated_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "resources_environment_id_id_key" UNIQUE("environment_id","id"),
	CONSTRAINT "resources_key_key" UNIQUE("environment_id","key"),
	CONSTRAINT "resources_key_check" CHECK ("resources"."is_builtin" or "resources"."key" ~ '^[A-Za-z0-9_-]+$')
);
--> statement-breakpoint
CREATE TABLE "role_assignments" (
	"id" uuid PRIMARY KEY NOT NULL,
	"environment_id" uuid NOT NULL,
	"user_id" uuid NOT NULL,
	"role_id" uuid NOT NULL,
	"account_id" uuid,
	"is_primary" boolean DEFAULT false NOT NULL,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "role_assignments_key" UNIQUE NULLS NOT DISTINCT("user_id","role_id","account_id")
);
--> statement-breakpoint
CREATE TABLE "role_permissions" (
	"environment_id" uuid NOT NULL,
	"role_id" uuid NOT NULL,
	"action_id" uuid NOT NULL,
	CONSTRAINT "role_permissions_pkey" PRIMARY KEY("role_id","action_id")
);
--> statement-breakpoint
CREATE TABLE "roles" (
	"id" uuid PRIMARY KEY NOT NULL,
	"environment_id" uuid NOT NULL,
	"resource_id" uuid,
	"key" text NOT NULL,
	"name" text NOT NULL,
	"description" text,
	"default_reach" text DEFAULT 'account' NOT NULL,
	"is_builtin" boolean DEFAULT false NOT NULL,
	"revision" integer DEFAULT 1 NOT NULL,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"updated_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "roles_environment_id_id_key" UNIQUE("environment_id","id"),
	CONSTRAINT "roles_key_key" UNIQUE NULLS NOT DISTINCT("environment_id","resource_id","key"),
	CONSTRAINT "roles_key_check" CHECK ("roles"."key" ~ '^[A-Za-z0-9_-]+$'),
	CONSTRAINT "roles_default_reach_check" CHECK ("roles"."default_reach" in ('account', 'any'))
);
--> statement-breakpoint
CREATE TABLE "schema_compatibility" (
	"version" integer PRIMARY KEY NOT NULL,
	"min_code" integer NOT NULL
);
--> statement-breakpoint
CREATE TABLE "sessions" (
	"id" uuid PRIMARY KEY NOT NULL,
	"environment_id" uuid NOT NULL,
	"user_id" uuid NOT NULL,
	"account_id" uuid,
	"client_id" text NOT NULL,
	"user_agent" text,
	"address" text,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"expires_at" timestamp (3) with time zone NOT NULL,
	"ended_at" timestamp (3) with time zone,
	"end_reason" text
);
--> statement-breakpoint
CREATE TABLE "settings" (
	"name" text PRIMARY KEY NOT NULL,
	"value" text NOT NULL
);
--> statement-breakpoint
CREATE TABLE "signing_keys" (
	"kid" text PRIMARY KEY NOT NULL,
	"algorithm" text NOT NULL,
	"public_jwk" jsonb NOT NULL,
	"private_key_sealed" text NOT NULL,
	"state" text NOT NULL,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"activated_at" timestamp (3) with time zone,
	"retired_at" timestamp (3) with time zone,
	CONSTRAINT "signing_keys_state_check" CHECK ("signing_keys"."state" in ('next', 'current', 'retired')),
	CONSTRAINT "signing_keys_algorithm_check" CHECK ("signing_keys"."algorithm" in ('ES256', 'RS256', 'EdDSA'))
);
--> statement-breakpoint
CREATE TABLE "user_credentials" (
	"user_id" uuid PRIMARY KEY NOT NULL,
	"environment_id" uuid NOT NULL,
	"password_hash" text NOT NULL,
	"must_change" boolean DEFAULT false NOT NULL,
	"email_verified_at" timestamp (3) with time zone,
	"credentials_changed_at" timestamp (3) with time zone DEFAULT now() NOT NULL
);
--> statement-breakpoint
CREATE TABLE "users" (
	"id" uuid PRIMARY KEY NOT NULL,
	"environment_id" uuid NOT NULL,
	"key" text NOT NULL,
	"email" text,
	"email_normalized" text,
	"full_name" text,
	"first_name" text,
	"last_name" text,
	"phone_number" text,
	"attributes" jsonb,
	"is_active" boolean DEFAULT true NOT NULL,
	"account_id" uuid,
	"token_version" integer DEFAULT 1 NOT NULL,
	"search_text" text NOT NULL,
	"revision" integer DEFAULT 1 NOT NULL,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"updated_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"deleted_at" timestamp (3) with time zone,
	CONSTRAINT "users_environment_id_id_key" UNIQUE("environment_id","id"),
	CONSTRAINT "users_email_check" CHECK (("users"."email" is null) = ("users"."email_normalized" is null))
);
--> statement-breakpoint
ALTER TABLE "account_members" ADD CONSTRAINT "account_members_account_id_fkey" FOREIGN KEY ("environment_id","account_id") REFERENCES "accounts"("environment_id","id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "account_members" ADD CONSTRAINT "account_members_user_id_fkey" FOREIGN KEY ("environment_id","user_id") REFERENCES "users"("environment_id","id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "accounts" ADD CONSTRAINT "accounts_environment_id_environments_id_fk" FOREIGN KEY ("environment_id") REFERENCES "environments"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "actions" ADD CONSTRAINT "actions_resource_id_fkey" FOREIGN KEY ("environment_id","resource_id") REFERENCES "resources"("environment_id","id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "api_keys" ADD CONSTRAINT "api_keys_environment_id_environments_id_fk" FOREIGN KEY ("environment_id") REFERENCES "environments"("id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "audit_events" ADD CONSTRAINT "audit_events_environment_id_environments_id_fk" FOREIGN KEY ("environment_id") REFERENCES "environments"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "audit_personal_data" ADD CONSTRAINT "audit_personal_data_audit_event_id_audit_events_id_fk" FOREIGN KEY ("audit_event_id") REFERENCES "audit_events"("id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "policy_versions" ADD CONSTRAINT "policy_versions_environment_id_environments_id_fk" FOREIGN KEY ("environment_id") REFERENCES "environments"("id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "resources" ADD CONSTRAINT "resources_environment_id_environments_id_fk" FOREIGN KEY ("environment_id") REFERENCES "environments"("id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "role_assignments" ADD CONSTRAINT "role_assignments_user_id_fkey" FOREIGN KEY ("environment_id","user_id") REFERENCES "users"("environment_id","id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "role_assignments" ADD CONSTRAINT "role_assignments_role_id_fkey" FOREIGN KEY ("environment_id","role_id") REFERENCES "roles"("environment_id","id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "role_assignments" ADD CONSTRAINT "role_assignments_member_fkey" FOREIGN KEY ("environment_id","account_id","user_id") REFERENCES "account_members"("environment_id","account_id","user_id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "role_permissions" ADD CONSTRAINT "role_permissions_role_id_fkey" FOREIGN KEY ("environment_id","role_id") REFERENCES "roles"("environment_id","id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "role_permissions" ADD CONSTRAINT "role_permissions_action_id_fkey" FOREIGN KEY ("environment_id","action_id") REFERENCES "actions"("environment_id","id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "roles" ADD CONSTRAINT "roles_environment_id_environments_id_fk" FOREIGN KEY ("environment_id") REFERENCES "environments"("id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "roles" ADD CONSTRAINT "roles_resource_id_fkey" FOREIGN KEY ("environment_id","resource_id") REFERENCES "resources"("environment_id","id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "sessions" ADD CONSTRAINT "sessions_user_id_fkey" FOREIGN KEY ("environment_id","user_id") REFERENCES "users"("environment_id","id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "sessions" ADD CONSTRAINT "sessions_account_id_fkey" FOREIGN KEY ("environment_id","account_id") REFERENCES "accounts"("environment_id","id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "user_credentials" ADD CONSTRAINT "user_credentials_user_id_fkey" FOREIGN KEY ("environment_id","user_id") REFERENCES "users"("environment_id","id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "users" ADD CONSTRAINT "users_environment_id_environments_id_fk" FOREIGN KEY ("environment_id") REFERENCES "environments"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "users" ADD CONSTRAINT "users_account_id_fkey" FOREIGN KEY ("environment_id","account_id") REFERENCES "accounts"("environment_id","id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
CREATE INDEX "account_members_user_id_idx" ON "account_members" USING btree ("user_id");--> statement-breakpoint
CREATE UNIQUE INDEX "accounts_key_key" ON "accounts" USING btree ("environment_id","key") WHERE deleted_at is null;--> statement-breakpoint
CREATE INDEX "accounts_list_idx" ON "accounts" USING btree ("environment_id","id") WHERE deleted_at is null;--> statement-breakpoint
CREATE INDEX "accounts_name_idx" ON "accounts" USING btree ("environment_id","name","id") WHERE deleted_at is null;--> statement-breakpoint
CREATE INDEX "accounts_updated_at_idx" ON "accounts" USING btree ("environment_id","updated_at","id") WHERE deleted_at is null;--> statement-breakpoint
CREATE INDEX "accounts_search_idx" ON "accounts" USING gin ("search_text" gin_trgm_ops);--> statement-breakpoint
CREATE INDEX "api_keys_environment_id_idx" ON "api_keys" USING btree ("environment_id","id");--> statement-breakpoint
CREATE INDEX "audit_events_list_idx" ON "audit_events" USING btree ("environment_id","id");--> statement-breakpoint
CREATE INDEX "audit_events_account_id_idx" ON "audit_events" USING btree ("environment_id","account_id","id");--> statement-breakpoint
CREATE INDEX "audit_events_actor_id_idx" ON "audit_events" USING btree ("environment_id","actor_id","id");--> statement-breakpoint
CREATE INDEX "audit_events_target_id_idx" ON "audit_events" USING btree ("environment_id","target_id","id");--> statement-breakpoint
CREATE INDEX "audit_events_action_idx" ON "audit_events" USING btree ("environment_id","action","id");--> statement-breakpoint
CREATE INDEX "audit_personal_data_subject_id_idx" ON "audit_personal_data" USING btree ("subject_id");--> statement-breakpoint
CREATE INDEX "login_attempts_last_attempt_at_idx" ON "login_attempts" USING btree ("last_attempt_at");--> statement-breakpoint
CREATE UNIQUE INDEX "role_assignments_primary_key" ON "role_assignments" USING btree ("user_id") WHERE is_primary;--> statement-breakpoint
CREATE INDEX "role_assignments_role_id_idx" ON "role_assignments" USING btree ("role_id");--> statement-breakpoint
CREATE INDEX "role_assignments_account_id_idx" ON "role_assignments" USING btree ("account_id");--> statement-breakpoint
CREATE INDEX "role_permissions_action_id_idx" ON "role_permissions" USING btree ("action_id");--> statement-breakpoint
CREATE INDEX "sessions_user_id_idx" ON "sessions" USING btree ("user_id","id");--> statement-breakpoint
CREATE INDEX "sessions_expires_at_idx" ON "sessions" USING btree ("expires_at");--> statement-breakpoint
CREATE UNIQUE INDEX "signing_keys_current_key" ON "signing_keys" USING btree ("state") WHERE state in ('next', 'current');--> statement-breakpoint
CREATE UNIQUE INDEX "users_email_key" ON "users" USING btree ("environment_id","email_normalized") WHERE deleted_at is null;--> statement-breakpoint
CREATE UNIQUE INDEX "users_key_key" ON "users" USING btree ("environment_id","key") WHERE deleted_at is null;--> statement-breakpoint
CREATE INDEX "users_account_id_idx" ON "users" USING btree ("environment_id","account_id","id") WHERE deleted_at is null;--> statement-breakpoint
CREATE INDEX "users_list_idx" ON "users" USING btree ("environment_id","id") WHERE deleted_at is null;--> statement-breakpoint
CREATE INDEX "users_full_name_idx" ON "users" USING btree ("environment_id",coalesce(full_name, ''),"id") WHERE deleted_at is null;--> statement-breakpoint
CREATE INDEX "users_email_sort_idx" ON "users" USING btree ("environment_id",coalesce(email_normalized, ''),"id") WHERE deleted_at is null;--> statement-breakpoint
CREATE INDEX "users_updated_at_idx" ON "users" USING btree ("environment_id","updated_at","id") WHERE deleted_at is null;--> statement-breakpoint
CREATE INDEX "users_search_idx" ON "users" USING gin ("search_text" gin_trgm_ops);
--> statement-breakpoint
-- The home account is one of the memberships. Deferred, because the two rows point at each other.
ALTER TABLE "users" ADD CONSTRAINT "users_home_member_fkey" FOREIGN KEY ("environment_id","account_id","id") REFERENCES "account_members"("environment_id","account_id","user_id") DEFERRABLE INITIALLY DEFERRED;--> statement-breakpoint
-- Other processes hear of every new policy version.
CREATE FUNCTION "notify_policy_version"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_notify('postern_policy', NEW.environment_id || ':' || NEW.version);
  RETURN NULL;
END $$;--> statement-breakpoint
CREATE TRIGGER "policy_versions_notify" AFTER UPDATE ON "policy_versions" FOR EACH ROW EXECUTE FUNCTION "notify_policy_version"();--> statement-breakpoint
INSERT INTO "environments" ("id", "project", "key", "name") VALUES ('00000000-0000-7000-8000-000000000001', 'default', 'default', 'Default');--> statement-breakpoint
INSERT INTO "policy_versions" ("environment_id") VALUES ('00000000-0000-7000-8000-000000000001');--> statement-breakpoint
INSERT INTO "schema_compatibility" ("version", "min_code") VALUES (1, 1);
