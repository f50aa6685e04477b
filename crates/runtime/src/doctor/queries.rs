//! The invariants' SQL. Every query yields `(subject, detail)` of at most 101 rows.
//!
//! Grace: rows younger than a few ticks are not judged; what a reconciler heals within 2 s has 15 s.

use super::Invariant;

pub(super) const ALL: &[Invariant] = &[
    Invariant {
        name: "run_has_open_job",
        sentence: "Every run that is not settled has at least one job that is not final.",
        sql: "SELECT 'run ' || r.id, 'running, all jobs final' FROM runs r
              WHERE r.state = 'running' AND r.created_at < now() - interval '15 seconds' AND NOT EXISTS (
                SELECT 1 FROM jobs j WHERE j.tenant_id = r.tenant_id AND j.run_id = r.id AND NOT j.on_settled
                  AND j.state NOT IN ('done', 'dead', 'cancelled')) LIMIT 101",
    },
    Invariant {
        name: "settled_run_is_still",
        sentence: "A settled run has no job left to do, but those that settlement releases.",
        sql: "SELECT 'job ' || j.id, j.stage || ' is ' || j.state || ', its run is ' || r.state FROM runs r
              JOIN jobs j ON j.tenant_id = r.tenant_id AND j.run_id = r.id
              WHERE r.state <> 'running' AND ((NOT j.on_settled AND j.state NOT IN ('done', 'dead', 'cancelled'))
                                              OR (j.on_settled AND j.state = 'blocked')) LIMIT 101",
    },
    Invariant {
        name: "run_outcome_follows_jobs",
        sentence: "A run is done when all its jobs are done and read every page, failed when a required one is not.",
        sql: "SELECT 'run ' || r.id, 'is ' || r.state FROM runs r
              CROSS JOIN LATERAL (SELECT bool_and(j.state = 'done') AS all_done,
                                         bool_and(j.state = 'done') FILTER (WHERE j.required) AS required_done,
                                         bool_or(j.manifest IS NULL OR j.manifest -> 'facts' ? 'failed_pages') AS maybe_partial
                                  FROM jobs j WHERE j.tenant_id = r.tenant_id AND j.run_id = r.id AND NOT j.on_settled) AS j
              WHERE (r.state = 'done' AND NOT j.all_done) OR (r.state = 'partial' AND ((j.all_done AND NOT j.maybe_partial) OR NOT coalesce(j.required_done, true)))
                 OR (r.state = 'failed' AND coalesce(j.required_done, true)) LIMIT 101",
    },
    Invariant {
        name: "blocked_counts_predecessors",
        sentence: "A blocked job waits for exactly as many predecessors as are not final.",
        sql: "SELECT 'job ' || j.id, j.stage || ' waits for ' || j.pending || ', ' || p.open || ' are open' FROM jobs j
              JOIN runs r ON r.tenant_id = j.tenant_id AND r.id = j.run_id
              CROSS JOIN LATERAL (SELECT count(*) AS open FROM jobs p
                  WHERE p.tenant_id = j.tenant_id AND p.run_id = j.run_id AND j.id = ANY (p.successors)
                    AND p.state NOT IN ('done', 'dead', 'cancelled')) AS p
              WHERE j.state = 'blocked' AND r.state = 'running' AND j.pending <> p.open LIMIT 101",
    },
    Invariant {
        name: "ready_job_has_event",
        sentence: "A ready job has an unsent outbox row, or its event was sent recently.",
        sql: "SELECT 'job ' || j.id, j.stage || ', emission ' || j.emission FROM jobs j
              WHERE j.state = 'ready' AND j.updated_at < now() - interval '15 seconds'
                AND coalesce(j.emitted_at < now() - interval '45 seconds', true)
                AND NOT EXISTS (SELECT 1 FROM outbox o WHERE o.job_id = j.id AND o.sent_at IS NULL) LIMIT 101",
    },
    Invariant {
        name: "outbox_moves",
        sentence: "A stage with nothing in flight and no pause has no event that waits.",
        sql: "SELECT 'outbox ' || min(o.id), coalesce(o.stage, o.topic) || ', ' || count(*) || ' rows' FROM outbox o
              WHERE o.sent_at IS NULL AND o.created_at < now() - interval '30 seconds'
                AND NOT EXISTS (SELECT 1 FROM jobs j WHERE j.stage = o.stage
                                AND (j.state = 'leased' OR (j.state = 'ready' AND j.emitted_at IS NOT NULL)))
                AND NOT EXISTS (SELECT 1 FROM pauses p WHERE (p.kind = 'stage' AND p.subject = o.stage)
                                OR (p.kind = 'tenant' AND p.subject = o.tenant_id::text))
              GROUP BY o.topic, o.stage LIMIT 101",
    },
    Invariant {
        name: "lease_is_live",
        sentence: "A leased job's lease has not run out.",
        sql: "SELECT 'job ' || id, stage || ', expired ' || extract(epoch FROM now() - lease_until)::integer || ' s ago' FROM jobs
              WHERE state = 'leased' AND lease_until < now() - interval '15 seconds' LIMIT 101",
    },
    Invariant {
        name: "timer_is_ahead",
        sentence: "A waiting job's timer, and one of a job held for budget, is not overdue.",
        sql: "SELECT 'job ' || id, stage || ', due ' || extract(epoch FROM now() - available_at)::integer || ' s ago' FROM jobs
              WHERE (state = 'waiting' OR (state = 'held' AND held_reason = 'budget'))
                AND available_at < now() - interval '15 seconds' LIMIT 101",
    },
    Invariant {
        name: "held_job_has_reason",
        sentence: "A job held for a pause has a pause that is in force.",
        sql: "SELECT 'job ' || j.id, j.stage FROM jobs j
              WHERE j.state = 'held' AND j.held_reason = 'paused' AND j.updated_at < now() - interval '15 seconds'
                AND NOT EXISTS (SELECT 1 FROM pauses p WHERE (p.kind = 'stage' AND p.subject = j.stage)
                    OR (p.kind = 'tenant' AND p.subject = j.tenant_id::text)
                    OR (p.kind = 'pipeline' AND p.subject = (
                        SELECT v.name FROM runs r JOIN pipeline_versions v ON v.version = r.pipeline_version
                        WHERE r.tenant_id = j.tenant_id AND r.id = j.run_id)))
                AND NOT EXISTS (SELECT 1 FROM pauses p WHERE p.created_at > now() - interval '15 seconds') LIMIT 101",
    },
    Invariant {
        name: "one_successful_attempt",
        sentence: "A done job has exactly one successful attempt, the one its fence names; no other job has any.",
        sql: "SELECT 'job ' || j.id, j.stage || ' is ' || j.state || ' with ' || a.done || ' successful attempts' FROM jobs j
              CROSS JOIN LATERAL (SELECT count(*) FILTER (WHERE a.outcome = 'done') AS done,
                                         count(*) FILTER (WHERE a.outcome = 'done' AND a.fence <> j.fence) AS stale
                                  FROM attempts a WHERE a.tenant_id = j.tenant_id AND a.job_id = j.id) AS a
              WHERE a.stale > 0 OR a.done <> CASE j.state WHEN 'done' THEN 1 ELSE 0 END LIMIT 101",
    },
    Invariant {
        name: "attempts_end",
        sentence: "An attempt without an outcome belongs to the lease its job has now.",
        sql: "SELECT 'job ' || j.id, 'attempt ' || a.fence || ' is open, the job is ' || j.state || ' at ' || j.fence FROM attempts a
              JOIN jobs j ON j.tenant_id = a.tenant_id AND j.id = a.job_id
              WHERE a.outcome IS NULL AND (j.state <> 'leased' OR j.fence <> a.fence) LIMIT 101",
    },
    Invariant {
        name: "upload_has_expiry",
        sentence: "An open upload is not past its expiry.",
        sql: "SELECT 'version ' || id, 'expired ' || extract(epoch FROM now() - upload_expires_at)::integer || ' s ago'
              FROM document_versions WHERE upload_state = 'pending' AND upload_expires_at < now() - interval '60 seconds' LIMIT 101",
    },
    Invariant {
        name: "schedule_fires",
        sentence: "A schedule that is due has fired, unless it is paused or its last firing is still at work.",
        sql: "SELECT 'schedule ' || s.pipeline || '/' || s.name, 'due ' || extract(epoch FROM now() - s.next_at)::integer || ' s ago'
              FROM schedules s WHERE s.next_at < now() - interval '10 minutes' AND s.paused_at IS NULL AND NOT EXISTS (
                SELECT 1 FROM replays r WHERE r.tenant_id = s.tenant_id AND r.pipeline = s.pipeline AND r.schedule = s.name
                  AND (r.state IN ('running', 'paused') OR r.finished_at > now() - interval '10 minutes')) LIMIT 101",
    },
    Invariant {
        name: "document_is_moving",
        sentence: "A document that is processing has a run that is running.",
        sql: "SELECT 'document ' || d.id, 'processing without a run' FROM documents d
              WHERE d.state = 'processing' AND d.deleted_at IS NULL AND d.updated_at < now() - interval '15 seconds'
                AND NOT EXISTS (SELECT 1 FROM runs r WHERE r.tenant_id = d.tenant_id AND r.document_id = d.id
                                AND r.state = 'running' AND r.cause <> 'sample') LIMIT 101",
    },
    Invariant {
        name: "accepted_version_has_run",
        sentence: "An accepted version was run at least once.",
        sql: "SELECT 'version ' || v.id, 'accepted without a run' FROM document_versions v
              WHERE v.upload_state = 'accepted' AND v.accepted_at < now() - interval '15 seconds'
                AND NOT EXISTS (SELECT 1 FROM runs r WHERE r.tenant_id = v.tenant_id AND r.version_id = v.id) LIMIT 101",
    },
    Invariant {
        name: "one_visible_generation",
        sentence: "What a document shows is its one visible generation.",
        sql: "SELECT 'document ' || d.id, 'shows a generation that is ' || coalesce(g.state, 'gone') FROM documents d
              LEFT JOIN generations g ON g.tenant_id = d.tenant_id AND g.id = d.visible_generation
              WHERE d.visible_generation IS NOT NULL AND d.deleted_at IS NULL
                AND (g.state IS DISTINCT FROM 'visible' OR g.document_id <> d.id)
              UNION ALL
              SELECT 'generation ' || g.id, 'visible, but its document shows another' FROM generations g
              JOIN documents d ON d.tenant_id = g.tenant_id AND d.id = g.document_id
              WHERE g.state = 'visible' AND d.deleted_at IS NULL AND d.visible_generation IS DISTINCT FROM g.id LIMIT 101",
    },
    Invariant {
        name: "feed_within_head",
        sentence: "No entry of the index feed, and no node's watermark, is beyond the feed's counter.",
        sql: "SELECT 'tenant ' || h.tenant_id, 'head ' || h.seq || ', beyond it ' || x.seq FROM index_heads h
              CROSS JOIN LATERAL (SELECT greatest(
                  (SELECT max(o.seq) FROM index_ops o WHERE o.tenant_id = h.tenant_id),
                  (SELECT max(w.seq) FROM index_watermarks w WHERE w.tenant_id = h.tenant_id)) AS seq) AS x
              WHERE x.seq > h.seq LIMIT 101",
    },
    Invariant {
        name: "space_moves",
        sentence: "An embedding space that is built or dropped is worked on, unless it is paused.",
        sql: "SELECT 'space ' || s.name, s.state || ', and nobody works on it' FROM embedding_spaces s
              WHERE s.state = 'building' AND NOT s.is_paused AND coalesce(s.lease_until, s.created_at) < now() - interval '120 seconds'
                AND NOT EXISTS (SELECT 1 FROM pauses p WHERE p.kind = 'stage' AND p.subject = 'embed')
              UNION ALL
              SELECT 'space ' || s.name, s.state || ', and nobody works on it' FROM embedding_spaces s
              JOIN space_drops d ON d.space_id = s.id AND d.finished_at IS NULL
              WHERE s.state = 'dropping' AND d.created_at < now() - interval '1 hour'
                AND NOT EXISTS (SELECT 1 FROM runs r WHERE r.state = 'running' AND r.created_at < d.created_at) LIMIT 101",
    },
    Invariant {
        name: "delivery_moves",
        sentence: "A delivery that is due is being sent.",
        sql: "SELECT 'delivery ' || id, 'attempt ' || attempts FROM deliveries
              WHERE state = 'ready' AND next_at < now() - interval '120 seconds'
                AND coalesce(lease_until < now() - interval '60 seconds', true) LIMIT 101",
    },
];
