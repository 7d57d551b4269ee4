-- Devices that only some builds have: the ndarray backend on the processor.

ALTER TABLE workers
    DROP CONSTRAINT workers_device_check,
    ADD CONSTRAINT workers_device_check CHECK (device IN ('cpu', 'cpu-ndarray', 'gpu'));

ALTER TABLE jobs
    DROP CONSTRAINT jobs_device_check,
    ADD CONSTRAINT jobs_device_check CHECK (device IN ('cpu', 'cpu-ndarray', 'gpu'));

ALTER TABLE job_leases
    DROP CONSTRAINT job_leases_device_check,
    ADD CONSTRAINT job_leases_device_check CHECK (device IN ('cpu', 'cpu-ndarray', 'gpu'));
