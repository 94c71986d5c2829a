-- The whole policy model: relations, derivations, instances, sets and rules; and what changes, for the caches.
CREATE TABLE "action_group_actions" (
	"resource_id" uuid NOT NULL,
	"group_id" uuid NOT NULL,
	"action_id" uuid NOT NULL,
	CONSTRAINT "action_group_actions_pkey" PRIMARY KEY("group_id","action_id")
);--> statement-breakpoint
CREATE TABLE "action_groups" (
	"id" uuid PRIMARY KEY NOT NULL,
	"environment_id" uuid NOT NULL,
	"resource_id" uuid NOT NULL,
	"key" text NOT NULL,
	"name" text NOT NULL,
	"description" text,
	"attributes" jsonb,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"updated_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "action_groups_key_key" UNIQUE("resource_id","key"),
	CONSTRAINT "action_groups_resource_id_id_key" UNIQUE("resource_id","id"),
	CONSTRAINT "action_groups_key_check" CHECK ("action_groups"."key" ~ '^[A-Za-z0-9_-]+$')
);--> statement-breakpoint
CREATE TABLE "attribute_definitions" (
	"id" uuid PRIMARY KEY NOT NULL,
	"environment_id" uuid NOT NULL,
	"resource_id" uuid,
	"key" text NOT NULL,
	"type" text NOT NULL,
	"description" text,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"updated_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "attribute_definitions_key_key" UNIQUE NULLS NOT DISTINCT("environment_id","resource_id","key"),
	CONSTRAINT "attribute_definitions_key_check" CHECK ("attribute_definitions"."key" ~ '^[A-Za-z0-9_-]+$'),
	CONSTRAINT "attribute_definitions_type_check" CHECK ("attribute_definitions"."type" in ('bool', 'number', 'string', 'time', 'array', 'json', 'object', 'object_array'))
);--> statement-breakpoint
CREATE TABLE "condition_sets" (
	"id" uuid PRIMARY KEY NOT NULL,
	"environment_id" uuid NOT NULL,
	"type" text NOT NULL,
	"resource_id" uuid,
	"key" text NOT NULL,
	"name" text NOT NULL,
	"description" text,
	"conditions" jsonb NOT NULL,
	"parent_id" uuid,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"updated_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "condition_sets_key_key" UNIQUE("environment_id","key"),
	CONSTRAINT "condition_sets_environment_id_id_key" UNIQUE("environment_id","id"),
	CONSTRAINT "condition_sets_key_check" CHECK ("condition_sets"."key" ~ '^[A-Za-z0-9_-]+$'),
	CONSTRAINT "condition_sets_type_check" CHECK ("condition_sets"."type" in ('userset', 'resourceset')),
	CONSTRAINT "condition_sets_resource_check" CHECK (("condition_sets"."type" = 'resourceset') = ("condition_sets"."resource_id" is not null))
);--> statement-breakpoint
CREATE TABLE "decision_log" (
	"id" uuid PRIMARY KEY NOT NULL,
	"environment_id" uuid NOT NULL,
	"decided_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"user_key" text NOT NULL,
	"action" text NOT NULL,
	"resource" text NOT NULL,
	"tenant" text,
	"is_allowed" boolean NOT NULL,
	"reason" text NOT NULL,
	"request_id" text
);--> statement-breakpoint
CREATE TABLE "policy_changes" (
	"id" bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY (sequence name "policy_changes_id_seq" INCREMENT BY 1 MINVALUE 1 MAXVALUE 9223372036854775807 START WITH 1 CACHE 1),
	"environment_id" uuid NOT NULL,
	"version" bigint,
	"transaction_id" "xid8" DEFAULT pg_current_xact_id() NOT NULL,
	"kind" text NOT NULL,
	"refs" text[] NOT NULL,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL
);--> statement-breakpoint
CREATE TABLE "projects" (
	"id" uuid PRIMARY KEY NOT NULL,
	"key" text NOT NULL,
	"name" text NOT NULL,
	"description" text,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"updated_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "projects_key_key" UNIQUE("key"),
	CONSTRAINT "projects_key_check" CHECK ("projects"."key" ~ '^[A-Za-z0-9_-]+$')
);--> statement-breakpoint
CREATE TABLE "relations" (
	"id" uuid PRIMARY KEY NOT NULL,
	"environment_id" uuid NOT NULL,
	"resource_id" uuid NOT NULL,
	"subject_resource_id" uuid NOT NULL,
	"key" text NOT NULL,
	"name" text NOT NULL,
	"description" text,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"updated_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "relations_key_key" UNIQUE("resource_id","key"),
	CONSTRAINT "relations_environment_id_id_key" UNIQUE("environment_id","id"),
	CONSTRAINT "relations_key_check" CHECK ("relations"."key" ~ '^[A-Za-z0-9_-]+$')
);--> statement-breakpoint
CREATE TABLE "relationship_tuples" (
	"id" uuid PRIMARY KEY NOT NULL,
	"environment_id" uuid NOT NULL,
	"account_id" uuid NOT NULL,
	"subject_id" uuid NOT NULL,
	"relation_id" uuid NOT NULL,
	"object_id" uuid NOT NULL,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "relationship_tuples_key" UNIQUE("object_id","relation_id","subject_id")
);--> statement-breakpoint
CREATE TABLE "resource_instances" (
	"id" uuid PRIMARY KEY NOT NULL,
	"environment_id" uuid NOT NULL,
	"account_id" uuid NOT NULL,
	"resource_id" uuid NOT NULL,
	"key" text NOT NULL,
	"attributes" jsonb,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"updated_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "resource_instances_key_key" UNIQUE("resource_id","key"),
	CONSTRAINT "resource_instances_account_id_id_key" UNIQUE("environment_id","account_id","id"),
	CONSTRAINT "resource_instances_key_check" CHECK ("resource_instances"."key" <> '' and length("resource_instances"."key") <= 512)
);--> statement-breakpoint
CREATE TABLE "role_derivations" (
	"id" uuid PRIMARY KEY NOT NULL,
	"environment_id" uuid NOT NULL,
	"role_id" uuid NOT NULL,
	"source_role_id" uuid NOT NULL,
	"relation_id" uuid NOT NULL,
	"no_direct_roles_on_object" boolean DEFAULT false NOT NULL,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "role_derivations_key" UNIQUE("role_id","source_role_id","relation_id")
);--> statement-breakpoint
CREATE TABLE "role_parents" (
	"environment_id" uuid NOT NULL,
	"role_id" uuid NOT NULL,
	"parent_id" uuid NOT NULL,
	CONSTRAINT "role_parents_pkey" PRIMARY KEY("role_id","parent_id"),
	CONSTRAINT "role_parents_check" CHECK ("role_parents"."role_id" <> "role_parents"."parent_id")
);--> statement-breakpoint
CREATE TABLE "set_rules" (
	"id" uuid PRIMARY KEY NOT NULL,
	"environment_id" uuid NOT NULL,
	"user_set_id" uuid,
	"role_id" uuid,
	"action_id" uuid NOT NULL,
	"resource_set_id" uuid,
	"resource_id" uuid,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "set_rules_key" UNIQUE NULLS NOT DISTINCT("action_id","user_set_id","role_id","resource_set_id","resource_id"),
	CONSTRAINT "set_rules_users_check" CHECK (num_nonnulls("set_rules"."user_set_id", "set_rules"."role_id") = 1),
	CONSTRAINT "set_rules_resources_check" CHECK (num_nonnulls("set_rules"."resource_set_id", "set_rules"."resource_id") = 1)
);--> statement-breakpoint
ALTER TABLE "role_assignments" DROP CONSTRAINT "role_assignments_key";--> statement-breakpoint
ALTER TABLE "accounts" DROP CONSTRAINT "accounts_environment_id_environments_id_fk";--> statement-breakpoint
ALTER TABLE "audit_events" DROP CONSTRAINT "audit_events_environment_id_environments_id_fk";--> statement-breakpoint
ALTER TABLE "users" DROP CONSTRAINT "users_environment_id_environments_id_fk";--> statement-breakpoint
ALTER TABLE "actions" ADD COLUMN "attributes" jsonb;--> statement-breakpoint
ALTER TABLE "actions" ADD COLUMN "updated_at" timestamp (3) with time zone DEFAULT now() NOT NULL;--> statement-breakpoint
ALTER TABLE "environments" ADD COLUMN "description" text;--> statement-breakpoint
ALTER TABLE "environments" ADD COLUMN "updated_at" timestamp (3) with time zone DEFAULT now() NOT NULL;--> statement-breakpoint
ALTER TABLE "resources" ADD COLUMN "urn" text;--> statement-breakpoint
ALTER TABLE "role_assignments" ADD COLUMN "resource_instance_id" uuid;--> statement-breakpoint
ALTER TABLE "role_assignments" ADD COLUMN "expires_at" timestamp (3) with time zone;--> statement-breakpoint
ALTER TABLE "roles" ADD COLUMN "attributes" jsonb;--> statement-breakpoint
ALTER TABLE "roles" ADD COLUMN "no_direct_roles_on_object" boolean DEFAULT false NOT NULL;--> statement-breakpoint
ALTER TABLE "actions" ADD CONSTRAINT "actions_resource_id_id_key" UNIQUE("resource_id","id");--> statement-breakpoint
ALTER TABLE "action_group_actions" ADD CONSTRAINT "action_group_actions_group_id_fkey" FOREIGN KEY ("resource_id","group_id") REFERENCES "action_groups"("resource_id","id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "action_group_actions" ADD CONSTRAINT "action_group_actions_action_id_fkey" FOREIGN KEY ("resource_id","action_id") REFERENCES "actions"("resource_id","id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "action_groups" ADD CONSTRAINT "action_groups_resource_id_fkey" FOREIGN KEY ("environment_id","resource_id") REFERENCES "resources"("environment_id","id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "attribute_definitions" ADD CONSTRAINT "attribute_definitions_environment_id_environments_id_fk" FOREIGN KEY ("environment_id") REFERENCES "environments"("id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "attribute_definitions" ADD CONSTRAINT "attribute_definitions_resource_id_fkey" FOREIGN KEY ("environment_id","resource_id") REFERENCES "resources"("environment_id","id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "condition_sets" ADD CONSTRAINT "condition_sets_environment_id_environments_id_fk" FOREIGN KEY ("environment_id") REFERENCES "environments"("id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "condition_sets" ADD CONSTRAINT "condition_sets_resource_id_fkey" FOREIGN KEY ("environment_id","resource_id") REFERENCES "resources"("environment_id","id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "condition_sets" ADD CONSTRAINT "condition_sets_parent_id_fkey" FOREIGN KEY ("environment_id","parent_id") REFERENCES "condition_sets"("environment_id","id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "decision_log" ADD CONSTRAINT "decision_log_environment_id_environments_id_fk" FOREIGN KEY ("environment_id") REFERENCES "environments"("id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "relations" ADD CONSTRAINT "relations_resource_id_fkey" FOREIGN KEY ("environment_id","resource_id") REFERENCES "resources"("environment_id","id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "relations" ADD CONSTRAINT "relations_subject_resource_id_fkey" FOREIGN KEY ("environment_id","subject_resource_id") REFERENCES "resources"("environment_id","id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "relationship_tuples" ADD CONSTRAINT "relationship_tuples_subject_id_fkey" FOREIGN KEY ("environment_id","account_id","subject_id") REFERENCES "resource_instances"("environment_id","account_id","id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "relationship_tuples" ADD CONSTRAINT "relationship_tuples_object_id_fkey" FOREIGN KEY ("environment_id","account_id","object_id") REFERENCES "resource_instances"("environment_id","account_id","id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "relationship_tuples" ADD CONSTRAINT "relationship_tuples_relation_id_fkey" FOREIGN KEY ("environment_id","relation_id") REFERENCES "relations"("environment_id","id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "resource_instances" ADD CONSTRAINT "resource_instances_account_id_fkey" FOREIGN KEY ("environment_id","account_id") REFERENCES "accounts"("environment_id","id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "resource_instances" ADD CONSTRAINT "resource_instances_resource_id_fkey" FOREIGN KEY ("environment_id","resource_id") REFERENCES "resources"("environment_id","id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "role_derivations" ADD CONSTRAINT "role_derivations_role_id_fkey" FOREIGN KEY ("environment_id","role_id") REFERENCES "roles"("environment_id","id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "role_derivations" ADD CONSTRAINT "role_derivations_source_role_id_fkey" FOREIGN KEY ("environment_id","source_role_id") REFERENCES "roles"("environment_id","id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "role_derivations" ADD CONSTRAINT "role_derivations_relation_id_fkey" FOREIGN KEY ("environment_id","relation_id") REFERENCES "relations"("environment_id","id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "role_parents" ADD CONSTRAINT "role_parents_role_id_fkey" FOREIGN KEY ("environment_id","role_id") REFERENCES "roles"("environment_id","id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "role_parents" ADD CONSTRAINT "role_parents_parent_id_fkey" FOREIGN KEY ("environment_id","parent_id") REFERENCES "roles"("environment_id","id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "set_rules" ADD CONSTRAINT "set_rules_user_set_id_fkey" FOREIGN KEY ("environment_id","user_set_id") REFERENCES "condition_sets"("environment_id","id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "set_rules" ADD CONSTRAINT "set_rules_role_id_fkey" FOREIGN KEY ("environment_id","role_id") REFERENCES "roles"("environment_id","id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "set_rules" ADD CONSTRAINT "set_rules_action_id_fkey" FOREIGN KEY ("environment_id","action_id") REFERENCES "actions"("environment_id","id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "set_rules" ADD CONSTRAINT "set_rules_resource_set_id_fkey" FOREIGN KEY ("environment_id","resource_set_id") REFERENCES "condition_sets"("environment_id","id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "set_rules" ADD CONSTRAINT "set_rules_resource_id_fkey" FOREIGN KEY ("environment_id","resource_id") REFERENCES "resources"("environment_id","id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
CREATE INDEX "action_group_actions_action_id_idx" ON "action_group_actions" USING btree ("action_id");--> statement-breakpoint
CREATE INDEX "condition_sets_resource_id_idx" ON "condition_sets" USING btree ("resource_id");--> statement-breakpoint
CREATE INDEX "condition_sets_parent_id_idx" ON "condition_sets" USING btree ("parent_id");--> statement-breakpoint
CREATE INDEX "decision_log_list_idx" ON "decision_log" USING btree ("environment_id","id");--> statement-breakpoint
CREATE INDEX "decision_log_user_key_idx" ON "decision_log" USING btree ("environment_id","user_key","id");--> statement-breakpoint
CREATE INDEX "decision_log_decided_at_idx" ON "decision_log" USING btree ("decided_at");--> statement-breakpoint
CREATE INDEX "policy_changes_version_idx" ON "policy_changes" USING btree ("environment_id","version");--> statement-breakpoint
CREATE INDEX "policy_changes_unsealed_idx" ON "policy_changes" USING btree ("transaction_id") WHERE version is null;--> statement-breakpoint
CREATE INDEX "policy_changes_created_at_idx" ON "policy_changes" USING btree ("created_at");--> statement-breakpoint
CREATE INDEX "relations_subject_resource_id_idx" ON "relations" USING btree ("subject_resource_id");--> statement-breakpoint
CREATE INDEX "relationship_tuples_subject_id_idx" ON "relationship_tuples" USING btree ("subject_id","relation_id");--> statement-breakpoint
CREATE INDEX "relationship_tuples_relation_id_idx" ON "relationship_tuples" USING btree ("relation_id");--> statement-breakpoint
CREATE INDEX "relationship_tuples_list_idx" ON "relationship_tuples" USING btree ("environment_id","id");--> statement-breakpoint
CREATE INDEX "relationship_tuples_account_id_idx" ON "relationship_tuples" USING btree ("account_id","id");--> statement-breakpoint
CREATE INDEX "resource_instances_list_idx" ON "resource_instances" USING btree ("environment_id","id");--> statement-breakpoint
CREATE INDEX "resource_instances_account_id_idx" ON "resource_instances" USING btree ("environment_id","account_id","resource_id","key");--> statement-breakpoint
CREATE INDEX "role_derivations_source_role_id_idx" ON "role_derivations" USING btree ("source_role_id");--> statement-breakpoint
CREATE INDEX "role_derivations_relation_id_idx" ON "role_derivations" USING btree ("relation_id");--> statement-breakpoint
CREATE INDEX "role_parents_parent_id_idx" ON "role_parents" USING btree ("parent_id");--> statement-breakpoint
CREATE INDEX "set_rules_list_idx" ON "set_rules" USING btree ("environment_id","id");--> statement-breakpoint
CREATE INDEX "set_rules_user_set_id_idx" ON "set_rules" USING btree ("user_set_id");--> statement-breakpoint
CREATE INDEX "set_rules_role_id_idx" ON "set_rules" USING btree ("role_id");--> statement-breakpoint
CREATE INDEX "set_rules_resource_set_id_idx" ON "set_rules" USING btree ("resource_set_id");--> statement-breakpoint
CREATE INDEX "set_rules_resource_id_idx" ON "set_rules" USING btree ("resource_id");--> statement-breakpoint
ALTER TABLE "accounts" ADD CONSTRAINT "accounts_environment_id_environments_id_fk" FOREIGN KEY ("environment_id") REFERENCES "environments"("id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
INSERT INTO "projects" ("id", "key", "name") VALUES ('00000000-0000-7000-8000-000000000002', 'default', 'Default');--> statement-breakpoint
ALTER TABLE "environments" ADD CONSTRAINT "environments_project_fkey" FOREIGN KEY ("project") REFERENCES "projects"("key") ON DELETE no action ON UPDATE cascade;--> statement-breakpoint
ALTER TABLE "role_assignments" ADD CONSTRAINT "role_assignments_resource_instance_id_fkey" FOREIGN KEY ("environment_id","account_id","resource_instance_id") REFERENCES "resource_instances"("environment_id","account_id","id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "users" ADD CONSTRAINT "users_environment_id_environments_id_fk" FOREIGN KEY ("environment_id") REFERENCES "environments"("id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
CREATE INDEX "role_assignments_resource_instance_id_idx" ON "role_assignments" USING btree ("resource_instance_id");--> statement-breakpoint
CREATE INDEX "role_assignments_list_idx" ON "role_assignments" USING btree ("environment_id","id");--> statement-breakpoint
CREATE INDEX "role_assignments_expires_at_idx" ON "role_assignments" USING btree ("expires_at") WHERE expires_at is not null;--> statement-breakpoint
ALTER TABLE "role_assignments" ADD CONSTRAINT "role_assignments_key" UNIQUE NULLS NOT DISTINCT("user_id","role_id","account_id","resource_instance_id");--> statement-breakpoint
ALTER TABLE "environments" ADD CONSTRAINT "environments_key_check" CHECK ("environments"."key" ~ '^[A-Za-z0-9_-]+$');--> statement-breakpoint
ALTER TABLE "role_assignments" ADD CONSTRAINT "role_assignments_instance_check" CHECK ("role_assignments"."resource_instance_id" is null or ("role_assignments"."account_id" is not null and not "role_assignments"."is_primary"));--> statement-breakpoint
-- A role and those whose permissions it has too. UNION ends a cycle.
CREATE FUNCTION "role_and_ancestors"("role" uuid) RETURNS SETOF uuid LANGUAGE sql STABLE AS $$
  WITH RECURSIVE "a" ("id") AS (
    SELECT "role" UNION SELECT p."parent_id" FROM "a" JOIN "role_parents" p ON p."role_id" = "a"."id")
  SELECT "id" FROM "a"
$$;--> statement-breakpoint
CREATE FUNCTION "role_and_descendants"("role" uuid) RETURNS SETOF uuid LANGUAGE sql STABLE AS $$
  WITH RECURSIVE "d" ("id") AS (
    SELECT "role" UNION SELECT p."role_id" FROM "d" JOIN "role_parents" p ON p."parent_id" = "d"."id")
  SELECT "id" FROM "d"
$$;--> statement-breakpoint
-- What a transaction changes in policy or facts is written down by triggers, so that no write can forget it. At the
-- end of the transaction the rows get the next version of their environment: the counter's row lock makes commit
-- order version order.
CREATE FUNCTION "seal_policy_changes"() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  sealed bigint;
BEGIN
  PERFORM 1 FROM "policy_changes" WHERE "id" = NEW."id" AND "version" IS NULL;
  IF NOT FOUND THEN RETURN NULL; END IF;
  UPDATE "policy_versions" SET "version" = "version" + 1 WHERE "environment_id" = NEW."environment_id"
    RETURNING "version" INTO sealed;
  IF sealed IS NULL THEN -- the environment itself is gone
    DELETE FROM "policy_changes" WHERE "environment_id" = NEW."environment_id";
  ELSE
    UPDATE "policy_changes" SET "version" = sealed
      WHERE "environment_id" = NEW."environment_id" AND "transaction_id" = pg_current_xact_id() AND "version" IS NULL;
  END IF;
  RETURN NULL;
END $$;--> statement-breakpoint
CREATE CONSTRAINT TRIGGER "policy_changes_seal" AFTER INSERT ON "policy_changes"
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION "seal_policy_changes"();--> statement-breakpoint
-- A statement that changes very much makes caches start anew, which is cheaper than telling them each row.
CREATE FUNCTION "record_policy_change"("environment" uuid, "kind" text, "refs" text[]) RETURNS void
LANGUAGE sql AS $$
  INSERT INTO "policy_changes" ("environment_id", "kind", "refs")
  SELECT "environment", CASE WHEN cardinality("refs") > 20000 THEN 'everything' ELSE "kind" END,
    CASE WHEN cardinality("refs") > 20000 THEN '{}' ELSE "refs" END
$$;--> statement-breakpoint
-- Definitions: the compiled policy is made anew.
CREATE FUNCTION "policy_definition_changed"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM "record_policy_change"("environment_id", 'policy', '{}')
    FROM (SELECT DISTINCT "environment_id" FROM "changed_rows") "e";
  RETURN NULL;
END $$;--> statement-breakpoint
CREATE TRIGGER "resources_inserted" AFTER INSERT ON "resources" REFERENCING NEW TABLE AS "changed_rows"
  FOR EACH STATEMENT EXECUTE FUNCTION "policy_definition_changed"();--> statement-breakpoint
CREATE TRIGGER "resources_updated" AFTER UPDATE ON "resources" REFERENCING NEW TABLE AS "changed_rows"
  FOR EACH STATEMENT EXECUTE FUNCTION "policy_definition_changed"();--> statement-breakpoint
CREATE TRIGGER "resources_deleted" AFTER DELETE ON "resources" REFERENCING OLD TABLE AS "changed_rows"
  FOR EACH STATEMENT EXECUTE FUNCTION "policy_definition_changed"();--> statement-breakpoint
CREATE TRIGGER "actions_inserted" AFTER INSERT ON "actions" REFERENCING NEW TABLE AS "changed_rows"
  FOR EACH STATEMENT EXECUTE FUNCTION "policy_definition_changed"();--> statement-breakpoint
CREATE TRIGGER "actions_updated" AFTER UPDATE ON "actions" REFERENCING NEW TABLE AS "changed_rows"
  FOR EACH STATEMENT EXECUTE FUNCTION "policy_definition_changed"();--> statement-breakpoint
CREATE TRIGGER "actions_deleted" AFTER DELETE ON "actions" REFERENCING OLD TABLE AS "changed_rows"
  FOR EACH STATEMENT EXECUTE FUNCTION "policy_definition_changed"();--> statement-breakpoint
CREATE TRIGGER "relations_inserted" AFTER INSERT ON "relations" REFERENCING NEW TABLE AS "changed_rows"
  FOR EACH STATEMENT EXECUTE FUNCTION "policy_definition_changed"();--> statement-breakpoint
CREATE TRIGGER "relations_updated" AFTER UPDATE ON "relations" REFERENCING NEW TABLE AS "changed_rows"
  FOR EACH STATEMENT EXECUTE FUNCTION "policy_definition_changed"();--> statement-breakpoint
CREATE TRIGGER "relations_deleted" AFTER DELETE ON "relations" REFERENCING OLD TABLE AS "changed_rows"
  FOR EACH STATEMENT EXECUTE FUNCTION "policy_definition_changed"();--> statement-breakpoint
CREATE TRIGGER "roles_inserted" AFTER INSERT ON "roles" REFERENCING NEW TABLE AS "changed_rows"
  FOR EACH STATEMENT EXECUTE FUNCTION "policy_definition_changed"();--> statement-breakpoint
CREATE TRIGGER "roles_updated" AFTER UPDATE ON "roles" REFERENCING NEW TABLE AS "changed_rows"
  FOR EACH STATEMENT EXECUTE FUNCTION "policy_definition_changed"();--> statement-breakpoint
CREATE TRIGGER "roles_deleted" AFTER DELETE ON "roles" REFERENCING OLD TABLE AS "changed_rows"
  FOR EACH STATEMENT EXECUTE FUNCTION "policy_definition_changed"();--> statement-breakpoint
CREATE TRIGGER "role_permissions_inserted" AFTER INSERT ON "role_permissions" REFERENCING NEW TABLE AS "changed_rows"
  FOR EACH STATEMENT EXECUTE FUNCTION "policy_definition_changed"();--> statement-breakpoint
CREATE TRIGGER "role_permissions_updated" AFTER UPDATE ON "role_permissions" REFERENCING NEW TABLE AS "changed_rows"
  FOR EACH STATEMENT EXECUTE FUNCTION "policy_definition_changed"();--> statement-breakpoint
CREATE TRIGGER "role_permissions_deleted" AFTER DELETE ON "role_permissions" REFERENCING OLD TABLE AS "changed_rows"
  FOR EACH STATEMENT EXECUTE FUNCTION "policy_definition_changed"();--> statement-breakpoint
CREATE TRIGGER "role_parents_inserted" AFTER INSERT ON "role_parents" REFERENCING NEW TABLE AS "changed_rows"
  FOR EACH STATEMENT EXECUTE FUNCTION "policy_definition_changed"();--> statement-breakpoint
CREATE TRIGGER "role_parents_updated" AFTER UPDATE ON "role_parents" REFERENCING NEW TABLE AS "changed_rows"
  FOR EACH STATEMENT EXECUTE FUNCTION "policy_definition_changed"();--> statement-breakpoint
CREATE TRIGGER "role_parents_deleted" AFTER DELETE ON "role_parents" REFERENCING OLD TABLE AS "changed_rows"
  FOR EACH STATEMENT EXECUTE FUNCTION "policy_definition_changed"();--> statement-breakpoint
CREATE TRIGGER "role_derivations_inserted" AFTER INSERT ON "role_derivations" REFERENCING NEW TABLE AS "changed_rows"
  FOR EACH STATEMENT EXECUTE FUNCTION "policy_definition_changed"();--> statement-breakpoint
CREATE TRIGGER "role_derivations_updated" AFTER UPDATE ON "role_derivations" REFERENCING NEW TABLE AS "changed_rows"
  FOR EACH STATEMENT EXECUTE FUNCTION "policy_definition_changed"();--> statement-breakpoint
CREATE TRIGGER "role_derivations_deleted" AFTER DELETE ON "role_derivations" REFERENCING OLD TABLE AS "changed_rows"
  FOR EACH STATEMENT EXECUTE FUNCTION "policy_definition_changed"();--> statement-breakpoint
CREATE TRIGGER "condition_sets_inserted" AFTER INSERT ON "condition_sets" REFERENCING NEW TABLE AS "changed_rows"
  FOR EACH STATEMENT EXECUTE FUNCTION "policy_definition_changed"();--> statement-breakpoint
CREATE TRIGGER "condition_sets_updated" AFTER UPDATE ON "condition_sets" REFERENCING NEW TABLE AS "changed_rows"
  FOR EACH STATEMENT EXECUTE FUNCTION "policy_definition_changed"();--> statement-breakpoint
CREATE TRIGGER "condition_sets_deleted" AFTER DELETE ON "condition_sets" REFERENCING OLD TABLE AS "changed_rows"
  FOR EACH STATEMENT EXECUTE FUNCTION "policy_definition_changed"();--> statement-breakpoint
CREATE TRIGGER "set_rules_inserted" AFTER INSERT ON "set_rules" REFERENCING NEW TABLE AS "changed_rows"
  FOR EACH STATEMENT EXECUTE FUNCTION "policy_definition_changed"();--> statement-breakpoint
CREATE TRIGGER "set_rules_updated" AFTER UPDATE ON "set_rules" REFERENCING NEW TABLE AS "changed_rows"
  FOR EACH STATEMENT EXECUTE FUNCTION "policy_definition_changed"();--> statement-breakpoint
CREATE TRIGGER "set_rules_deleted" AFTER DELETE ON "set_rules" REFERENCING OLD TABLE AS "changed_rows"
  FOR EACH STATEMENT EXECUTE FUNCTION "policy_definition_changed"();--> statement-breakpoint
-- People: their record, memberships and roles. An update counts when it touches what a decision reads.
CREATE FUNCTION "users_changed"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'UPDATE' THEN
    PERFORM "record_policy_change"("environment_id", 'user', array_agg("id"::text) || array_agg("key") || array_agg("old_key"))
      FROM (
        SELECT n."environment_id", n."id", n."key", o."key" AS "old_key" FROM "changed_rows" n JOIN "old_rows" o ON o."id" = n."id"
        WHERE (n."key", n."email", n."first_name", n."last_name", n."attributes", n."is_active", n."deleted_at")
          IS DISTINCT FROM (o."key", o."email", o."first_name", o."last_name", o."attributes", o."is_active", o."deleted_at")
      ) "c" GROUP BY "environment_id";
  ELSE
    PERFORM "record_policy_change"("environment_id", 'user', array_agg("id"::text) || array_agg("key"))
      FROM "changed_rows" GROUP BY "environment_id";
  END IF;
  RETURN NULL;
END $$;--> statement-breakpoint
CREATE TRIGGER "users_inserted" AFTER INSERT ON "users" REFERENCING NEW TABLE AS "changed_rows"
  FOR EACH STATEMENT EXECUTE FUNCTION "users_changed"();--> statement-breakpoint
CREATE TRIGGER "users_updated" AFTER UPDATE ON "users" REFERENCING NEW TABLE AS "changed_rows" OLD TABLE AS "old_rows"
  FOR EACH STATEMENT EXECUTE FUNCTION "users_changed"();--> statement-breakpoint
CREATE TRIGGER "users_deleted" AFTER DELETE ON "users" REFERENCING OLD TABLE AS "changed_rows"
  FOR EACH STATEMENT EXECUTE FUNCTION "users_changed"();--> statement-breakpoint
CREATE FUNCTION "user_facts_changed"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM "record_policy_change"("environment_id", 'user', array_agg("user_id"::text))
    FROM "changed_rows" GROUP BY "environment_id";
  RETURN NULL;
END $$;--> statement-breakpoint
CREATE TRIGGER "account_members_inserted" AFTER INSERT ON "account_members" REFERENCING NEW TABLE AS "changed_rows"
  FOR EACH STATEMENT EXECUTE FUNCTION "user_facts_changed"();--> statement-breakpoint
CREATE TRIGGER "account_members_updated" AFTER UPDATE ON "account_members" REFERENCING NEW TABLE AS "changed_rows"
  FOR EACH STATEMENT EXECUTE FUNCTION "user_facts_changed"();--> statement-breakpoint
CREATE TRIGGER "account_members_deleted" AFTER DELETE ON "account_members" REFERENCING OLD TABLE AS "changed_rows"
  FOR EACH STATEMENT EXECUTE FUNCTION "user_facts_changed"();--> statement-breakpoint
CREATE TRIGGER "role_assignments_inserted" AFTER INSERT ON "role_assignments" REFERENCING NEW TABLE AS "changed_rows"
  FOR EACH STATEMENT EXECUTE FUNCTION "user_facts_changed"();--> statement-breakpoint
CREATE TRIGGER "role_assignments_updated" AFTER UPDATE ON "role_assignments" REFERENCING NEW TABLE AS "changed_rows"
  FOR EACH STATEMENT EXECUTE FUNCTION "user_facts_changed"();--> statement-breakpoint
CREATE TRIGGER "role_assignments_deleted" AFTER DELETE ON "role_assignments" REFERENCING OLD TABLE AS "changed_rows"
  FOR EACH STATEMENT EXECUTE FUNCTION "user_facts_changed"();--> statement-breakpoint
-- Accounts. Cached people and instances name their account by its key, so a new key makes everything stale.
CREATE FUNCTION "accounts_changed"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'UPDATE' THEN
    PERFORM "record_policy_change"("environment_id", CASE WHEN bool_or("key" <> "old_key") THEN 'everything' ELSE 'account' END,
        array_agg("id"::text) || array_agg("key"))
      FROM (
        SELECT n."environment_id", n."id", n."key", o."key" AS "old_key" FROM "changed_rows" n JOIN "old_rows" o ON o."id" = n."id"
        WHERE (n."key", n."attributes", n."is_active", n."deleted_at")
          IS DISTINCT FROM (o."key", o."attributes", o."is_active", o."deleted_at")
      ) "c" GROUP BY "environment_id";
  ELSE
    PERFORM "record_policy_change"("environment_id", 'account', array_agg("id"::text) || array_agg("key"))
      FROM "changed_rows" GROUP BY "environment_id";
  END IF;
  RETURN NULL;
END $$;--> statement-breakpoint
CREATE TRIGGER "accounts_inserted" AFTER INSERT ON "accounts" REFERENCING NEW TABLE AS "changed_rows"
  FOR EACH STATEMENT EXECUTE FUNCTION "accounts_changed"();--> statement-breakpoint
CREATE TRIGGER "accounts_updated" AFTER UPDATE ON "accounts" REFERENCING NEW TABLE AS "changed_rows" OLD TABLE AS "old_rows"
  FOR EACH STATEMENT EXECUTE FUNCTION "accounts_changed"();--> statement-breakpoint
CREATE TRIGGER "accounts_deleted" AFTER DELETE ON "accounts" REFERENCING OLD TABLE AS "changed_rows"
  FOR EACH STATEMENT EXECUTE FUNCTION "accounts_changed"();--> statement-breakpoint
-- Instances, by id and by `resource:key`; a tuple changes its object.
CREATE FUNCTION "resource_instances_changed"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM "record_policy_change"(c."environment_id", 'instance',
      array_agg(c."id"::text) || coalesce(array_agg(r."key" || ':' || c."key") FILTER (WHERE r."key" IS NOT NULL), '{}'))
    FROM "changed_rows" c LEFT JOIN "resources" r ON r."id" = c."resource_id" GROUP BY c."environment_id";
  RETURN NULL;
END $$;--> statement-breakpoint
CREATE FUNCTION "relationship_tuples_changed"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM "record_policy_change"("environment_id", 'instance', array_agg("object_id"::text))
    FROM "changed_rows" GROUP BY "environment_id";
  RETURN NULL;
END $$;--> statement-breakpoint
CREATE TRIGGER "resource_instances_inserted" AFTER INSERT ON "resource_instances" REFERENCING NEW TABLE AS "changed_rows"
  FOR EACH STATEMENT EXECUTE FUNCTION "resource_instances_changed"();--> statement-breakpoint
CREATE TRIGGER "resource_instances_updated" AFTER UPDATE ON "resource_instances" REFERENCING NEW TABLE AS "changed_rows"
  FOR EACH STATEMENT EXECUTE FUNCTION "resource_instances_changed"();--> statement-breakpoint
CREATE TRIGGER "resource_instances_deleted" AFTER DELETE ON "resource_instances" REFERENCING OLD TABLE AS "changed_rows"
  FOR EACH STATEMENT EXECUTE FUNCTION "resource_instances_changed"();--> statement-breakpoint
CREATE TRIGGER "relationship_tuples_inserted" AFTER INSERT ON "relationship_tuples" REFERENCING NEW TABLE AS "changed_rows"
  FOR EACH STATEMENT EXECUTE FUNCTION "relationship_tuples_changed"();--> statement-breakpoint
CREATE TRIGGER "relationship_tuples_updated" AFTER UPDATE ON "relationship_tuples" REFERENCING NEW TABLE AS "changed_rows"
  FOR EACH STATEMENT EXECUTE FUNCTION "relationship_tuples_changed"();--> statement-breakpoint
CREATE TRIGGER "relationship_tuples_deleted" AFTER DELETE ON "relationship_tuples" REFERENCING OLD TABLE AS "changed_rows"
  FOR EACH STATEMENT EXECUTE FUNCTION "relationship_tuples_changed"();--> statement-breakpoint
-- A deleted resource takes its instances along, whose names can then no longer be told.
CREATE FUNCTION "resources_deleted_with_instances"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM "record_policy_change"("environment_id", 'everything', '{}')
    FROM (SELECT DISTINCT "environment_id" FROM "changed_rows") "e";
  RETURN NULL;
END $$;--> statement-breakpoint
CREATE TRIGGER "resources_deleted_facts" AFTER DELETE ON "resources" REFERENCING OLD TABLE AS "changed_rows"
  FOR EACH STATEMENT EXECUTE FUNCTION "resources_deleted_with_instances"();--> statement-breakpoint
-- API keys are cached under the default environment, whatever they open. Their last use is no change.
CREATE FUNCTION "api_keys_changed"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM "record_policy_change"('00000000-0000-7000-8000-000000000001', 'api_key', array_agg("id"::text))
    FROM "changed_rows" HAVING count(*) > 0;
  RETURN NULL;
END $$;--> statement-breakpoint
CREATE FUNCTION "api_keys_updated"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM "record_policy_change"('00000000-0000-7000-8000-000000000001', 'api_key', array_agg(n."id"::text))
    FROM "changed_rows" n JOIN "old_rows" o ON o."id" = n."id"
    WHERE (n."revoked_at", n."expires_at", n."access", n."key_hash") IS DISTINCT FROM (o."revoked_at", o."expires_at", o."access", o."key_hash")
    HAVING count(*) > 0;
  RETURN NULL;
END $$;--> statement-breakpoint
CREATE TRIGGER "api_keys_inserted" AFTER INSERT ON "api_keys" REFERENCING NEW TABLE AS "changed_rows"
  FOR EACH STATEMENT EXECUTE FUNCTION "api_keys_changed"();--> statement-breakpoint
CREATE TRIGGER "api_keys_deleted" AFTER DELETE ON "api_keys" REFERENCING OLD TABLE AS "changed_rows"
  FOR EACH STATEMENT EXECUTE FUNCTION "api_keys_changed"();--> statement-breakpoint
CREATE TRIGGER "api_keys_updated" AFTER UPDATE ON "api_keys" REFERENCING NEW TABLE AS "changed_rows" OLD TABLE AS "old_rows"
  FOR EACH STATEMENT EXECUTE FUNCTION "api_keys_updated"();--> statement-breakpoint
INSERT INTO "schema_compatibility" ("version", "min_code") VALUES (2, 2);
