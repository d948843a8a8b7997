//! Attacks from outside of a sandbox, and those that have a test of their own.

use super::By::Test;
use super::Layer::{Archives, Http, Inheritance, Lookup, Processes, Proxy, Separation, Validation};
use super::{Attack, Expect, row};

const fn by(number: u8, name: &'static str, layer: super::Layer, test: &'static str) -> Attack {
    row(number, name, layer, Expect::Test, Test(test))
}

pub const ROWS: &[Attack] = &[
    by(17, "redirect-to-metadata", Proxy, REDIRECTS),
    by(17, "names-that-change-their-mind", Proxy, REBINDING),
    by(17, "heads-that-say-two-things", Proxy, HEADS),
    by(33, "archives-that-lead-out", Archives, ARCHIVES),
    by(33, "archives-with-devices-and-links", Archives, ARCHIVES),
    by(33, "archives-with-names-twice-or-strange", Archives, ARCHIVES),
    by(33, "archives-of-too-many-files", Archives, ARCHIVES),
    by(33, "archives-that-unpack-to-too-much", Archives, BOMBS),
    by(34, "layers-that-lead-out", Archives, "oci/src/unpack/tests.rs: nothing_leaves_the_tree"),
    by(34, "layers-with-links-out", Archives, LINKS),
    by(34, "layers-with-devices-and-setuid-files", Archives, MODES),
    by(
        34,
        "layers-that-unpack-to-too-much",
        Archives,
        "oci/src/unpack/tests.rs: there_is_an_end_to_everything",
    ),
    by(
        34,
        "layers-of-other-bytes",
        Archives,
        "oci/tests/it/pulls.rs: other_bytes_than_the_digest_says_are_refused_and_not_kept",
    ),
    by(
        34,
        "images-of-too-many-layers",
        Validation,
        "oci/src/manifest.rs: what_is_not_an_image_is_refused_with_a_reason",
    ),
    by(
        34,
        "image-archives-that-reach-out",
        Archives,
        "oci/tests/it/archives.rs: an_archive_that_reaches_for_other_files_is_refused",
    ),
    by(
        34,
        "registries-that-ask-for-secrets",
        Validation,
        "oci/tests/it/pulls.rs: secrets_do_not_leave_for_places_without_tls",
    ),
    by(
        34,
        "images-of-another-by-name",
        Lookup,
        "runner/src/language.rs: the_languages_of_this_machine_are_found_and_references_mean_them",
    ),
    by(35, "deep-and-broken-json", Validation, "gateway::strange_json_is_refused_at_the_door"),
    by(36, "lengths-in-doubt", Http, "gateway::requests_whose_length_is_in_doubt_are_refused"),
    by(36, "length-beside-chunks", Http, "gateway::a_length_beside_chunks_smuggles_nothing"),
    by(36, "heads-without-end", Http, "gateway::heads_without_end_are_refused"),
    by(36, "strange-targets", Http, "gateway::strange_targets_reach_no_function"),
    by(36, "headers-that-split-responses", Http, RESPONSES),
    by(36, "hop-by-hop-headers-of-functions", Http, RESPONSES),
    by(36, "slow-senders", Http, "gateway::slow_senders_do_not_keep_others_out"),
    by(36, "streams-reset-at-once", Http, "gateway::streams_that_are_reset_at_once_cost_little"),
    by(36, "head-in-endless-pieces", Http, "gateway::a_head_in_endless_pieces_is_cut_off"),
    by(37, "names-that-are-paths", Validation, "names::names_are_names_and_nothing_else"),
    by(2, "code-and-secrets-by-name", Lookup, LISTS),
    by(2, "runs-and-logs-by-id", Lookup, ALIKE),
    by(2, "changing-and-removing-by-name", Lookup, ALIKE),
    by(2, "whether-something-exists", Lookup, ALIKE),
    by(2, "lists-pages-and-watches", Lookup, LISTS),
    by(2, "routes-of-another", Lookup, "tenants::routes_of_another_are_not_taken_over"),
    by(38, "files-and-memory-of-another", Separation, WORKERS),
    by(38, "ports-sockets-and-queues-of-another", Separation, WORKERS),
    by(38, "processes-of-another", Processes, WORKERS),
    by(38, "what-an-earlier-revision-left", Separation, WORKERS),
    by(39, "worker-used-again-after-its-end", Separation, "inside::python_in_tier_a"),
    by(37, "hijack-by-variables", Inheritance, "names::variables_are_a_functions_own"),
];

const LINKS: &str = "oci/src/unpack/tests.rs: links_lead_nowhere_but_into_the_tree";
const MODES: &str =
    "oci/src/unpack/tests.rs: permissions_are_for_one_user_and_nobody_becomes_another";
const ALIKE: &str = "tenants::what_another_has_answers_like_what_nobody_has";
const LISTS: &str = "tenants::lists_watches_and_references_stay_inside";
const WORKERS: &str = "tenants::workers_find_nothing_of_each_other";
const REDIRECTS: &str =
    "runner/tests/it/egress.rs: python_fetches_through_the_proxy_by_its_variables";
const REBINDING: &str =
    "runner/tests/it/egress.rs: a_name_that_changes_its_mind_is_looked_up_once_for_each_connection";
const HEADS: &str = "runner/tests/it/egress.rs: tricks_with_names_and_heads_lead_nowhere";
const BOMBS: &str = "runner/src/archive/tests.rs: bombs_meet_their_limits";
const ARCHIVES: &str = "archives::archives_that_try_to_get_out_are_refused_by_name";
const RESPONSES: &str = "gateway::what_a_function_returns_makes_no_other_response";
