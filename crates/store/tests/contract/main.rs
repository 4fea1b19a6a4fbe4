//! One contract, kept by both databases: every behaviour here runs on SQLite and on PostgreSQL.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod archive;
mod coordination;
mod jobs;
mod ledger;
mod leftovers;
mod letters;
mod messages;
mod operators;
mod schema;
mod states;
mod tasks;
mod world;
mod writers;

/// Makes one test of each behaviour for each database.
macro_rules! on_both {
    ($($module:ident: $($behaviour:ident)+;)+) => {
        mod sqlite {
            $($(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $behaviour() {
                crate::$module::$behaviour(crate::world::World::sqlite().await).await;
            })+)+
        }

        mod postgres {
            $($(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $behaviour() {
                crate::$module::$behaviour(crate::world::World::postgres().await).await;
            })+)+
        }
    };
}

on_both! {
    archive:
        a_small_caller_is_not_crowded_out
        hostile_queries_find_something_or_nothing_but_never_fail
        reindexed_passages_replace
        vectors_of_another_model_or_dimension_are_refused
        what_was_deleted_takes_nobodys_place
        words_and_vectors_find_passages;
    coordination:
        a_new_term_waits_for_the_writes_of_the_old_one
        a_stale_terms_write_is_refused
        fences_only_grow
        leases_are_known_by_id_and_fence
        one_leads_and_the_next_has_a_higher_term
        what_fitted_is_remembered_for_a_week
        workers_are_upserted_and_lost;
    jobs:
        a_job_is_deleted_with_all_that_is_its_own
        a_soft_limit_takes_out_what_has_not_begun
        changes_of_a_job_are_seen
        events_are_numbered_without_gaps
        paging_is_stable_while_jobs_arrive
        results_are_stored_once
        submit_is_idempotent;
    ledger:
        every_discrepancy_is_found
        what_was_accepted_balances;
    leftovers:
        objects_are_needed_while_a_task_may_run
        searches_are_forgotten_with_all_that_is_theirs;
    letters:
        a_letter_is_indexed_once_and_replayed
        a_letter_that_comes_back_twice_is_parked
        a_letter_that_nobody_needs_leaves_the_queue
        a_replay_goes_on_where_it_was
        a_thousand_letters_of_three_causes_are_three_groups
        letters_are_paged_with_a_total
        letters_are_purged_discarded_and_put_back
        letters_that_lie_there_after_all_leave_or_are_dead_again;
    messages:
        a_message_has_its_effect_once
        messages_behind_a_full_queue_are_found
        the_outbox_survives_and_is_relayed;
    operators:
        a_table_that_grew_is_planned_for
        a_pause_lasts_until_it_is_ended
        a_request_is_answered_once
        failures_are_counted_by_cause
        open_work_of_a_kind_is_found_with_its_jobs
        silent_and_unplanned_jobs_are_found
        ticks_keep_the_last_round;
    schema:
        an_unmigrated_database_is_refused
        migrations_go_up_down_and_up;
    states:
        a_job_moves_only_where_an_event_leads
        every_event_moves_a_task_as_its_state_machine_says;
    tasks:
        a_dead_task_is_revived_under_the_dispatch_it_died_with
        a_task_that_failed_keeps_its_cause
        cancelled_tasks_are_never_finished
        counts_and_stats_agree
        dead_tasks_come_back_by_redrive
        finishing_with_an_old_dispatch_is_stale
        planning_twice_plans_once
        release_goes_by_plan;
    writers:
        a_dropped_transaction_changes_nothing
        a_write_can_be_spawned_and_borrow
        many_writers_lose_no_update
        text_with_nul_and_numbers_that_are_none_are_stored;
}
