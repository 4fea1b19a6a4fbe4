//! Every metric of Warren, under the exact name that `/metrics` shows.
//!
//! A name carries its unit (`_seconds`, `_bytes`), counters end in `_total`. Label values come from small closed sets
//! (kinds, states, codes, models); never a job, task or caller.

mod instruments;

pub use instruments::{Counter, Gauge, Histogram, render};

/// From 5 ms to an hour.
const SECONDS: &[f64] =
    &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 1800.0, 3600.0];
const RATIO: &[f64] = &[0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 5.0, 10.0];

macro_rules! metrics {
    ($($(#[doc = $doc:literal])+ $name:ident: $kind:ident($metric:literal $(, $bounds:expr)?);)+) => {
        $(
            $(#[doc = $doc])+
            #[doc = concat!("\n\nScraped as `", $metric, "`.")]
            pub static $name: $kind = $kind::new($metric, first_sentence(concat!($($doc),+)) $(, $bounds)?);
        )+
    };
}

/// Drops the blank that `///` leaves in front, so that the help text is the doc comment.
const fn first_sentence(doc: &'static str) -> &'static str {
    match doc.as_bytes() {
        [b' ', ..] => doc.split_at(1).1,
        _ => doc,
    }
}

// Jobs, as the coordinator sees them. Gauges are the leader's; a coordinator that no longer leads shows 0.
metrics! {
    /// Jobs accepted, by kind.
    JOBS_SUBMITTED: Counter("warren_jobs_submitted_total");
    /// Jobs that ended, by kind and outcome.
    JOBS_ENDED: Counter("warren_jobs_completed_total");
    /// Time from submit to end, by kind and outcome.
    JOB_SECONDS: Histogram("warren_job_duration_seconds", SECONDS);
    /// Jobs that have not ended, by kind and state.
    JOBS: Gauge("warren_jobs");
    /// Tasks that wait for a worker, unreleased and released, by kind. Workers are scaled on it.
    TASKS_WAITING: Gauge("warren_tasks_waiting");
    /// Age of the task that has waited longest, by kind.
    OLDEST_TASK: Gauge("warren_oldest_waiting_task_age_seconds");
    /// Time from a task's creation to its result, by kind and outcome.
    TASK_WAIT_SECONDS: Histogram("warren_task_wait_seconds", SECONDS);
    /// Time to decide which tasks go out and to write it down, by kind.
    RELEASE_SECONDS: Histogram("warren_release_duration_seconds", SECONDS);
    /// Results that were dropped because their dispatch was no longer the current one.
    STALE_RESULTS: Counter("warren_stale_results_total");
    /// 1 while this coordinator leads, else 0.
    LEADING: Gauge("warren_coordinator_leading");
    /// Worker processes with a session, by service.
    WORKERS: Gauge("warren_workers");
    /// Tasks that the workers with a session can run at once, by kind.
    WORKER_SLOTS: Gauge("warren_worker_slots");
}

// Device leases.
metrics! {
    /// Leases held, by device.
    LEASES_HELD: Gauge("warren_leases_held");
    /// Requests that wait for a device, by device.
    LEASES_WAITING: Gauge("warren_leases_waiting");
    /// Leases that ran out without being given back, by device.
    LEASES_EXPIRED: Counter("warren_lease_expirations_total");
    /// Time that a worker waited for a lease, by device and model.
    LEASE_WAIT_SECONDS: Histogram("warren_lease_wait_seconds", SECONDS);
    /// Memory promised to leases, by device.
    DEVICE_MEMORY: Gauge("warren_device_memory_leased_bytes");
    /// Memory that leases may fill, by device.
    DEVICE_BUDGET: Gauge("warren_device_memory_budget_bytes");
    /// Memory that a holder was promised, by device, worker and model; 0 when it holds nothing any more.
    LEASE_MEMORY: Gauge("warren_lease_memory_bytes");
    /// Memory in use on a device, whoever has it, by device; from when a worker first used the device.
    DEVICE_USED: Gauge("warren_device_memory_used_bytes");
    /// All memory of a device, by device.
    DEVICE_TOTAL: Gauge("warren_device_memory_total_bytes");
}

// Work, as a worker sees it.
metrics! {
    /// Time that a worker spent on one attempt, by kind and outcome.
    TASK_SECONDS: Histogram("warren_task_duration_seconds", SECONDS);
    /// Attempts put on the retry ladder, by kind and error code.
    RETRIES: Counter("warren_task_retries_total");
    /// Audio transcribed, by model.
    AUDIO_SECONDS: Counter("warren_audio_seconds_total");
    /// Seconds of work for one second of audio, by model; under 1 is faster than real time.
    REAL_TIME_FACTOR: Histogram("warren_real_time_factor", RATIO);
    /// Texts embedded, by model.
    TEXTS: Counter("warren_texts_total");
    /// Time in forward passes, by model and device.
    INFERENCE_SECONDS: Counter("warren_inference_seconds_total");
    /// Time to load a model's weights, by model.
    MODEL_LOAD_SECONDS: Histogram("warren_model_load_seconds", SECONDS);
}

// Broker and store.
metrics! {
    /// Messages published, by queue or exchange and outcome: ack, nack, returned, lost.
    PUBLISHES: Counter("warren_publishes_total");
    /// Deliveries settled, by queue and outcome: ack, delay, dead, requeue.
    DELIVERIES: Counter("warren_deliveries_total");
    /// Connections to the broker that had to be made again.
    RECONNECTS: Counter("warren_broker_reconnects_total");
    /// Dead letters that wait for a person.
    DEAD_LETTERS: Gauge("warren_dead_letters");
    /// Dead letters made, by queue and error code.
    DEAD_LETTERS_MADE: Counter("warren_dead_letters_made_total");
    /// Outbox rows not yet sent.
    OUTBOX_WAITING: Gauge("warren_outbox_waiting");
    /// Age of the oldest outbox row not yet sent.
    OUTBOX_AGE: Gauge("warren_outbox_oldest_age_seconds");
}

// The doors.
metrics! {
    /// Calls answered, by method and status.
    CALLS: Counter("warren_calls_total");
    /// Time to answer a call, by method.
    CALL_SECONDS: Histogram("warren_call_duration_seconds", SECONDS);
    /// Bytes of media taken in.
    UPLOADED_BYTES: Counter("warren_uploaded_bytes_total");
}

// The process.
metrics! {
    /// Panics caught or fatal. Each is a defect.
    PANICS: Counter("warren_panics_total");
    /// 1 while every part that the process needs is there, else 0.
    READY: Gauge("warren_ready");
    /// Always 1; the labels say which service and version this is.
    BUILD_INFO: Gauge("warren_build_info");
}
