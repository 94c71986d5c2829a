-- API keys that write but manage nothing, and how many people an environment has. Expands: processes of the version before
-- refuse the new access, and is_called_write stays for them. Writes to people wait until those who are there are counted.
LOCK TABLE "users" IN SHARE ROW EXCLUSIVE MODE;--> statement-breakpoint
ALTER TABLE "policy_changes" ADD COLUMN "people_added" bigint;--> statement-breakpoint
ALTER TABLE "policy_versions" ADD COLUMN "people" bigint DEFAULT 0 NOT NULL;--> statement-breakpoint
ALTER TABLE "policy_versions" ADD COLUMN "people_version" bigint DEFAULT 1 NOT NULL;--> statement-breakpoint
ALTER TABLE "api_keys" DROP CONSTRAINT "api_keys_access_check";--> statement-breakpoint
ALTER TABLE "api_keys" ADD CONSTRAINT "api_keys_access_check" CHECK ("api_keys"."access" in ('full', 'write', 'read'));--> statement-breakpoint
-- At the end of a transaction the people that its statements added are known too, in the same write as the version.
CREATE OR REPLACE FUNCTION "seal_policy_changes"() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  sealed bigint;
  added bigint;
BEGIN
  PERFORM 1 FROM "policy_changes" WHERE "id" = NEW."id" AND "version" IS NULL;
  IF NOT FOUND THEN RETURN NULL; END IF;
  SELECT sum("people_added") INTO added FROM "policy_changes"
    WHERE "environment_id" = NEW."environment_id" AND "transaction_id" = pg_current_xact_id() AND "version" IS NULL;
  UPDATE "policy_versions" SET "version" = "version" + 1, "people" = "people" + coalesce(added, 0),
      "people_version" = CASE WHEN added IS NULL THEN "people_version" ELSE "version" + 1 END
    WHERE "environment_id" = NEW."environment_id" RETURNING "version" INTO sealed;
  IF sealed IS NULL THEN -- the environment itself is gone
    DELETE FROM "policy_changes" WHERE "environment_id" = NEW."environment_id";
  ELSE
    UPDATE "policy_changes" SET "version" = sealed
      WHERE "environment_id" = NEW."environment_id" AND "transaction_id" = pg_current_xact_id() AND "version" IS NULL;
  END IF;
  RETURN NULL;
END $$;--> statement-breakpoint
DROP FUNCTION "record_policy_change"(uuid, text, text[]);--> statement-breakpoint
-- A statement that changes very much makes caches start anew, which is cheaper than telling them each row.
CREATE FUNCTION "record_policy_change"("environment" uuid, "kind" text, "refs" text[], "people_added" bigint DEFAULT NULL)
RETURNS void LANGUAGE sql AS $$
  INSERT INTO "policy_changes" ("environment_id", "kind", "refs", "people_added")
  SELECT "environment", CASE WHEN cardinality("refs") > 20000 THEN 'everything' ELSE "kind" END,
    CASE WHEN cardinality("refs") > 20000 THEN '{}' ELSE "refs" END, "people_added"
$$;--> statement-breakpoint
-- Whoever is deleted but still there is not counted. Who comes for another one leaves the number as it is, but not null.
CREATE OR REPLACE FUNCTION "users_changed"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'UPDATE' THEN
    PERFORM "record_policy_change"("environment_id", 'user', array_agg("id"::text) || array_agg("key") || array_agg("old_key"),
        sum("is_there"::int - "was_there"::int) FILTER (WHERE "is_there" <> "was_there"))
      FROM (
        SELECT n."environment_id", n."id", n."key", o."key" AS "old_key",
          n."deleted_at" IS NULL AS "is_there", o."deleted_at" IS NULL AS "was_there"
        FROM "changed_rows" n JOIN "old_rows" o ON o."id" = n."id"
        WHERE (n."key", n."email", n."first_name", n."last_name", n."attributes", n."is_active", n."deleted_at")
          IS DISTINCT FROM (o."key", o."email", o."first_name", o."last_name", o."attributes", o."is_active", o."deleted_at")
      ) "c" GROUP BY "environment_id";
  ELSE
    PERFORM "record_policy_change"("environment_id", 'user', array_agg("id"::text) || array_agg("key"),
        CASE TG_OP WHEN 'INSERT' THEN 1 ELSE -1 END * nullif(count(*) FILTER (WHERE "deleted_at" IS NULL), 0))
      FROM "changed_rows" GROUP BY "environment_id";
  END IF;
  RETURN NULL;
END $$;--> statement-breakpoint
UPDATE "policy_versions" v SET "people" = c."people", "people_version" = v."version"
  FROM (SELECT "environment_id", count(*) AS "people" FROM "users" WHERE "deleted_at" IS NULL GROUP BY "environment_id") c
  WHERE c."environment_id" = v."environment_id";--> statement-breakpoint
INSERT INTO "schema_compatibility" ("version", "min_code") VALUES (6, 2);
