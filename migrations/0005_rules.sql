-- Rules that watch trainings report through the job's events.

ALTER TABLE job_events DROP CONSTRAINT job_events_kind_check;
ALTER TABLE job_events ADD CONSTRAINT job_events_kind_check CHECK (kind IN (
    'submitted', 'status_changed', 'phase_changed', 'progress', 'requested', 'checkpointed', 'published',
    'rule_triggered'));
