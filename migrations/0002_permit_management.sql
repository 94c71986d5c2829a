-- What Permit's management API knows besides: URL mappings, invites, and the key that an environment itself has.
CREATE TABLE "proxy_configs" (
	"id" uuid PRIMARY KEY NOT NULL,
	"environment_id" uuid NOT NULL,
	"key" text NOT NULL,
	"name" text NOT NULL,
	"mapping_rules" jsonb NOT NULL,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"updated_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "proxy_configs_key_key" UNIQUE("environment_id","key"),
	CONSTRAINT "proxy_configs_key_check" CHECK ("proxy_configs"."key" ~ '^[A-Za-z0-9_-]+$')
);
--> statement-breakpoint
CREATE TABLE "user_invites" (
	"id" uuid PRIMARY KEY NOT NULL,
	"environment_id" uuid NOT NULL,
	"key" text NOT NULL,
	"email" text NOT NULL,
	"email_normalized" text NOT NULL,
	"first_name" text,
	"last_name" text,
	"status" text DEFAULT 'pending' NOT NULL,
	"role_id" uuid NOT NULL,
	"account_id" uuid NOT NULL,
	"resource_instance_id" uuid,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"updated_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "user_invites_key_key" UNIQUE("environment_id","key"),
	CONSTRAINT "user_invites_status_check" CHECK ("user_invites"."status" in ('pending', 'approved'))
);
--> statement-breakpoint
ALTER TABLE "api_keys" ADD COLUMN "is_environments_own" boolean DEFAULT false NOT NULL;--> statement-breakpoint
ALTER TABLE "api_keys" ADD COLUMN "key_sealed" text;--> statement-breakpoint
ALTER TABLE "proxy_configs" ADD CONSTRAINT "proxy_configs_environment_id_environments_id_fk" FOREIGN KEY ("environment_id") REFERENCES "public"."environments"("id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "user_invites" ADD CONSTRAINT "user_invites_role_id_fkey" FOREIGN KEY ("environment_id","role_id") REFERENCES "public"."roles"("environment_id","id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "user_invites" ADD CONSTRAINT "user_invites_account_id_fkey" FOREIGN KEY ("environment_id","account_id") REFERENCES "public"."accounts"("environment_id","id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "user_invites" ADD CONSTRAINT "user_invites_resource_instance_id_fkey" FOREIGN KEY ("environment_id","account_id","resource_instance_id") REFERENCES "public"."resource_instances"("environment_id","account_id","id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
CREATE INDEX "user_invites_list_idx" ON "user_invites" USING btree ("environment_id","id");--> statement-breakpoint
CREATE INDEX "user_invites_role_id_idx" ON "user_invites" USING btree ("role_id");--> statement-breakpoint
CREATE INDEX "user_invites_account_id_idx" ON "user_invites" USING btree ("account_id");--> statement-breakpoint
CREATE INDEX "user_invites_resource_instance_id_idx" ON "user_invites" USING btree ("resource_instance_id");--> statement-breakpoint
CREATE UNIQUE INDEX "api_keys_environments_own_key" ON "api_keys" USING btree ("environment_id") WHERE is_environments_own and revoked_at is null;--> statement-breakpoint
ALTER TABLE "api_keys" ADD CONSTRAINT "api_keys_environments_own_check" CHECK ("api_keys"."is_environments_own" = ("api_keys"."key_sealed" is not null));--> statement-breakpoint
-- Which action a URL is belongs to the policy that processes keep at hand.
CREATE TRIGGER "proxy_configs_inserted" AFTER INSERT ON "proxy_configs" REFERENCING NEW TABLE AS "changed_rows"
  FOR EACH STATEMENT EXECUTE FUNCTION "policy_definition_changed"();--> statement-breakpoint
CREATE TRIGGER "proxy_configs_updated" AFTER UPDATE ON "proxy_configs" REFERENCING NEW TABLE AS "changed_rows"
  FOR EACH STATEMENT EXECUTE FUNCTION "policy_definition_changed"();--> statement-breakpoint
CREATE TRIGGER "proxy_configs_deleted" AFTER DELETE ON "proxy_configs" REFERENCING OLD TABLE AS "changed_rows"
  FOR EACH STATEMENT EXECUTE FUNCTION "policy_definition_changed"();--> statement-breakpoint
INSERT INTO "schema_compatibility" ("version", "min_code") VALUES (3, 2);
