//! One stack, driven as a user drives it: every command's results and exit codes are those of the contract.

use std::{fs, time::Duration};

use serde_json::{Value, json};
use warren_local::http;
use warren_recordings::error_rate;
use warren_tests::{
    cases::Cases,
    recordings::{self, clip, inaugural},
    stack::{Stack, keys},
    wait::until,
    wave,
};

#[test]
fn a_stack_does_what_its_commands_promise() {
    let stack = Stack::start();
    let mut cases = Cases::new();
    cases.case("the stack is as described", || the_stack_is_as_described(&stack));
    cases.case("a human voice is written down", || a_human_voice_is_written_down(&stack));
    cases.case("care in decoding is chosen and told", || care_is_chosen_and_told(&stack));
    cases.case("languages are found out", || languages_are_found_out(&stack));
    cases.case("subtitles are well formed", || subtitles_are_well_formed(&stack));
    cases.case("texts become unit vectors", || texts_become_unit_vectors(&stack));
    cases.case("what was said is found by its meaning", || what_was_said_is_found_by_its_meaning(&stack));
    cases.case("work can be watched", || work_can_be_watched(&stack));
    cases.case("a job can be cancelled", || a_job_can_be_cancelled(&stack));
    cases.case("exit codes tell what went wrong", || exit_codes_tell_what_went_wrong(&stack));
    cases.case("a second start changes nothing", || a_second_start_changes_nothing(&stack));
    cases.case("settings that cannot be used change nothing", || settings_that_cannot_be_used_change_nothing(&stack));
    cases.case("a log is shown by line", || a_log_is_shown_by_line(&stack));
    cases.case("weights are copied for another machine", || weights_are_copied_for_another_machine(&stack));
    cases.case("the doctor finds nothing amiss", || the_doctor_finds_nothing_amiss(&stack));
    cases.case("a stack can grow and shrink", || a_stack_can_grow_and_shrink(&stack));
    cases.finish();
    stack.stop();
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("{field}: not a text in {value}"))
}

fn number(value: &Value, field: &str) -> f64 {
    value[field].as_f64().unwrap_or_else(|| panic!("{field}: not a number in {value}"))
}

fn path(path: &std::path::Path) -> &str {
    path.to_str().expect("test files have plain names")
}

fn the_stack_is_as_described(stack: &Stack) {
    let services = stack.ps();
    let names: Vec<_> = services.iter().map(|service| service.name.as_str()).collect();
    assert_eq!(names, ["rabbitmq", "s3", "ingest", "coordinator", "transcription", "batch-embedding"]);
    for service in &services {
        assert!(service.pid.is_some() && service.state == "ready" && service.restarts == 0, "{service:?}");
    }
    for service in services.iter().filter(|service| !["rabbitmq", "s3"].contains(&service.name.as_str())) {
        let url = service.http.as_deref().unwrap_or_else(|| panic!("{service:?}"));
        let address = url.strip_prefix("http://").and_then(|address| address.parse().ok()).expect("an address");
        let metrics = http::get(address, "/metrics", Duration::from_secs(10)).expect("it answers");
        assert!(metrics.body.contains("warren_build_info"), "{service:?}: {}", metrics.body);
    }
    let endpoints = stack.endpoints();
    assert_eq!(keys(&endpoints), ["amqp", "database", "grpc", "http", "management", "s3"]);
    for part in endpoints.as_object().expect("an object").values() {
        assert_eq!(keys(part), ["password", "url", "user"]);
        assert!(!text(part, "url").is_empty(), "{endpoints}");
    }

    // The management page's queues, with where their messages go when they die.
    let queues = stack.management().queues();
    for name in ["warren.task.prepare", "warren.task.transcribe", "warren.task.embed", "warren.job", "warren.result"] {
        let queue = queues.iter().find(|queue| queue["name"] == name).unwrap_or_else(|| panic!("no queue {name}"));
        assert_eq!(queue["arguments"]["x-dead-letter-exchange"], "warren.dlx", "{name}");
        assert_eq!(queue["arguments"]["x-queue-type"], "quorum", "{name}");
    }
}

fn a_human_voice_is_written_down(stack: &Stack) {
    let voice = inaugural();
    let heard = stack.warren(&["transcribe", "--json", "--model", "tiny.en", path(&voice.path)]).ok().json();
    assert_eq!(
        keys(&heard),
        ["beam_size", "duration", "file", "job", "language", "model", "quality", "segments", "state", "text"]
    );
    assert_eq!(text(&heard, "file"), path(&voice.path));
    assert!(text(&heard, "job").starts_with("job_"), "{heard}");
    assert_eq!((text(&heard, "state"), text(&heard, "language")), ("succeeded", "en"));
    assert!((number(&heard, "duration") - 11.0).abs() < 0.1, "{heard}");
    let errors = error_rate::words(&voice.text, text(&heard, "text"));
    println!("    word error rate {:.1} %", errors * 100.0);
    assert!(errors <= 0.15, "{errors}: {heard}");

    let segments = heard["segments"].as_array().expect("an array");
    assert!(!segments.is_empty());
    let mut before = 0.0;
    for segment in segments {
        assert_eq!(keys(segment), ["end", "start", "text"]);
        let (start, end) = (number(segment, "start"), number(segment, "end"));
        assert!(before <= start && start < end && end <= 11.1, "{segment}");
        before = end;
    }
    let joined: String = segments.iter().map(|segment| text(segment, "text")).collect::<Vec<_>>().join(" ");
    assert_eq!(error_rate::words(text(&heard, "text"), &joined), 0.0, "{heard}");

    let later = stack.warren(&["transcript", "--json", text(&heard, "job")]).ok().json();
    assert_eq!((&later["complete"], &later["segments"]), (&Value::Bool(true), &heard["segments"]));
}

fn languages_are_found_out(stack: &Stack) {
    let clips = ["fr/pangrama", "pt/pangrama", "zh/nihao_shijie", "ja/konnichiwa_sekai"].map(clip);
    let mut arguments = vec!["transcribe", "--json", "--model", "base"];
    arguments.extend(clips.iter().map(|clip| path(&clip.path)));
    let heard = stack.warren(&arguments).ok().json_lines();
    assert_eq!(heard.len(), clips.len(), "one line for each file");
    for (clip, heard) in clips.iter().zip(&heard) {
        let language = &clip.language;
        assert_eq!(text(heard, "file"), path(&clip.path), "in the order of the arguments");
        assert_eq!(text(heard, "language"), language, "{heard}");
        let errors = error_rate::of(language, &clip.text, text(heard, "text"));
        println!("    {language}: {:.1} % of `{}`: `{}`", errors * 100.0, clip.text, text(heard, "text"));
        assert!(errors <= 0.4, "{language}: {heard}");
    }
}

fn subtitles_are_well_formed(stack: &Stack) {
    let voice = inaugural();
    let folder = stack.folder().join("sub titles");
    for format in ["srt", "vtt", "txt", "json"] {
        let arguments =
            ["transcribe", "--model", "tiny.en", "--format", format, "-o", path(&folder), path(&voice.path)];
        let output = stack.warren(&arguments).ok();
        assert_eq!(output.stdout, "", "results go into the file");
    }
    let read =
        |format: &str| fs::read_to_string(folder.join(format!("en-inaugural.{format}"))).expect("it was written");

    let srt = read("srt");
    let vtt = read("vtt");
    let body = vtt.strip_prefix("WEBVTT\n").unwrap_or_else(|| panic!("no WEBVTT line first: {vtt}"));
    for (subtitles, decimal) in [(srt.as_str(), ','), (body, '.')] {
        let mut before = 0.0;
        let mut said = String::new();
        let mut count = 0;
        for block in subtitles.trim().split("\n\n") {
            count += 1;
            let mut lines = block.lines();
            let mut times = lines.next().unwrap_or_default();
            if decimal == ',' {
                assert_eq!(times.parse(), Ok(count), "numbered from 1: {block}");
                times = lines.next().unwrap_or_default();
            }
            let (start, end) = times.split_once(" --> ").unwrap_or_else(|| panic!("no times: {block}"));
            let (start, end) = (seconds(start, decimal), seconds(end, decimal));
            assert!(before <= start && start < end && end <= 11.1, "{block}");
            before = end;
            lines.for_each(|line| said = format!("{said} {line}"));
        }
        assert!(error_rate::words(&voice.text, &said) <= 0.15, "{subtitles}");
    }
    assert!(error_rate::words(&voice.text, &read("txt")) <= 0.15);
    let json: Value = serde_json::from_str(&read("json")).expect("JSON");
    assert!(error_rate::words(&voice.text, text(&json, "text")) <= 0.15);
}

/// `00:01:02,345` in seconds.
fn seconds(time: &str, decimal: char) -> f64 {
    let (clock, thousandths) = time.split_once(decimal).unwrap_or_else(|| panic!("no `{decimal}` in {time}"));
    assert_eq!(thousandths.len(), 3, "{time}");
    let whole = clock.split(':').fold(0.0, |sum, part| sum * 60.0 + part.parse::<f64>().expect("a number"));
    whole + thousandths.parse::<f64>().expect("a number") / 1000.0
}

fn vectors(lines: &[Value]) -> Vec<Vec<f64>> {
    let vector =
        |line: &Value| line.as_array().expect("an array").iter().map(|v| v.as_f64().expect("a number")).collect();
    lines.iter().map(vector).collect()
}

fn cosine(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn care_is_chosen_and_told(stack: &Stack) {
    let voice = inaugural();
    let path = voice.path.to_str().expect("plain");
    for (arguments, model, quality, beam_size) in [
        (&[][..], "base", "balanced", 1),
        (&["--quality", "fast", "--model", "tiny.en"], "tiny.en", "fast", 1),
        (&["--quality", "best", "--model", "tiny.en"], "tiny.en", "best", 5),
        (&["--quality", "best", "--beam-size", "2", "--model", "tiny.en"], "tiny.en", "best", 2),
    ] {
        let heard = stack.warren(&[&["transcribe", "--json", path], arguments].concat()).ok().json();
        assert!(error_rate::words(&voice.text, text(&heard, "text")) <= 0.15, "{arguments:?}: {heard}");
        let job = text(&heard, "job");
        let shown = stack.warren(&["jobs", "show", "--json", job]).ok().json();
        let transcript = stack.warren(&["transcript", "--json", job]).ok().json();
        let file = stack.warren(&["transcript", "--format", "json", job]).ok().stdout;
        let file: Value = serde_json::from_str(&file).expect("JSON");
        for told in [&heard, &shown, &transcript, &file] {
            assert_eq!((text(told, "model"), text(told, "quality")), (model, quality), "{arguments:?}: {told}");
            assert_eq!(told["beam_size"], beam_size, "{arguments:?}: {told}");
        }
    }
    let refused = stack.warren(&["transcribe", "--beam-size", "9", path]);
    assert_eq!(refused.code, 2, "{}", refused.stderr);
    assert!(refused.stderr.contains("--beam-size"), "{}", refused.stderr);
}

fn texts_become_unit_vectors(stack: &Stack) {
    let texts = "A man is eating food.\nShare prices fell on Monday.\nSomebody is having a meal.\n";
    let limit = Duration::from_secs(120);
    let lines = stack.warren_within(limit, &["embed", "--json", "--model", "all-MiniLM-L6-v2", "-"], texts).ok();
    let vectors = vectors(&lines.json_lines());
    assert_eq!(vectors.len(), 3, "one line for each text");
    for vector in &vectors {
        assert_eq!(vector.len(), 384);
        assert!((cosine(vector, vector) - 1.0).abs() < 1e-5, "length {}", cosine(vector, vector).sqrt());
    }
    assert!(cosine(&vectors[0], &vectors[2]) > cosine(&vectors[0], &vectors[1]) + 0.3, "in the order of the lines");

    let many: String = (0..300).map(|number| format!("This is sentence number {number}.\n")).collect();
    let lines = stack.warren_within(limit, &["embed", "--json", "-"], &many).ok();
    assert_eq!(lines.json_lines().len(), 300);
}

fn what_was_said_is_found_by_its_meaning(stack: &Stack) {
    let voice = inaugural();
    stack.warren(&["transcribe", "--index", "--model", "tiny.en", path(&voice.path)]).ok();
    let others = "Penguins swim under the ice to catch fish.\n\
                  The oven must be hot before the bread goes in.\n\
                  Sales of new cars dropped in the third quarter.\n\
                  The orchestra tuned its violins before the concert.\n\
                  Rain is expected over the mountains tonight.\n\
                  Her bicycle has a flat tyre.\n\
                  The court found the witness to be reliable.\n\
                  Photosynthesis turns light into sugar.\n";
    stack.warren_within(Duration::from_secs(120), &["embed", "--json", "--index", "-"], others).ok();

    // No word of the passages, except such as `the`.
    for (query, wanted) in [
        ("citizens should serve their nation", "fellow Americans"),
        ("polar birds hunting in cold water", "Penguins"),
        ("baking a loaf at high temperature", "oven"),
        ("musicians getting ready to perform", "orchestra"),
    ] {
        // Indexing follows the end of the job within moments.
        let hits = until(query, Duration::from_secs(30), || {
            let hits = stack.warren(&["search", "--json", query]).ok().json_lines();
            hits.first().is_some_and(|hit| text(hit, "text").contains(wanted)).then_some(hits)
        });
        for field in ["job", "name", "start", "end", "text"] {
            assert!(!hits[0][field].is_null(), "{field}: {}", hits[0]);
        }
    }
    let hits = stack.warren(&["search", "--json", "--limit", "3", "citizens should serve their nation"]).ok();
    let hits = hits.json_lines();
    assert_eq!(hits.len(), 3);
    assert!(text(&hits[0], "name").contains("inaugural"), "{}", hits[0]);
    assert!(number(&hits[0], "end") > number(&hits[0], "start"), "{}", hits[0]);
}

fn work_can_be_watched(stack: &Stack) {
    let voice = inaugural();
    let heard = stack.warren(&["transcribe", "--json", "--model", "tiny.en", path(&voice.path)]).ok().json();
    let id = text(&heard, "job");

    let job = stack.job(id);
    for field in ["id", "kind", "state", "progress_done", "progress_planned", "error_code"] {
        assert!(job.get(field).is_some(), "{field}: {job}");
    }
    assert_eq!((text(&job, "kind"), text(&job, "state"), text(&job, "error_code")), ("transcribe", "succeeded", ""));
    assert!((number(&job, "progress_planned") - 11.0).abs() < 0.1, "{job}");
    assert_eq!(number(&job, "progress_done"), number(&job, "progress_planned"), "{job}");

    let mut events = stack.warren(&["watch", "--json", id]).ok().json_lines();
    let end = events.pop().expect("the job as it ended");
    assert_eq!((text(&end, "id"), text(&end, "state")), (id, "succeeded"), "{end}");
    let sequences: Vec<_> = events.iter().map(|event| number(event, "sequence") as i64).collect();
    assert!(!events.is_empty() && sequences.windows(2).all(|pair| pair[0] < pair[1]), "{sequences:?}");
    let names: Vec<_> = events.iter().map(|event| text(event, "event")).collect();
    assert_eq!(names.first(), Some(&"job.submitted"), "{names:?}");
    assert_eq!(names.last(), Some(&"job.succeeded"), "{names:?}");

    let queues = stack.warren(&["queues", "--json"]).ok().json_lines();
    let kinds: Vec<_> = queues.iter().map(|queue| text(queue, "kind")).collect();
    assert_eq!(kinds, ["prepare", "transcribe", "embed"]);
    for queue in &queues {
        assert_eq!(text(queue, "queue"), format!("warren.task.{}", text(queue, "kind")));
        assert!(number(queue, "slots") >= 1.0, "{queue}");
        assert_eq!((number(queue, "unreleased"), number(queue, "dead")), (0.0, 0.0), "{queue}");
    }

    let workers = stack.warren(&["workers", "--json"]).ok().json_lines();
    let live: Vec<_> = workers.iter().filter(|worker| worker["state"] == "live").collect();
    assert_eq!(live.len(), 2, "{workers:?}");
    for service in ["transcription", "batch-embedding"] {
        assert!(live.iter().any(|worker| text(worker, "service") == service), "{workers:?}");
    }
}

fn a_job_can_be_cancelled(stack: &Stack) {
    let long = recordings::long_english(&stack.folder().join("to be cancelled.wav"), 12);
    let before = stack.jobs().len();
    let client = stack.begin(&["transcribe", "--json", "--model", "tiny.en", path(&long.path)]);
    let job = until("work on it", Duration::from_secs(60), || {
        let jobs = stack.jobs();
        let newest = (jobs.len() > before).then(|| jobs[0].clone())?;
        assert_ne!(newest["state"], "succeeded", "too fast to be cancelled");
        (number(&newest, "progress_done") > 0.0).then_some(newest)
    });
    let id = text(&job, "id");
    let told = stack.warren(&["cancel", "--json", id]).ok().json();
    assert_eq!((text(&told, "state"), told["effective"].as_bool()), ("cancelled", Some(true)), "{told}");
    let output = client.wait(Duration::from_secs(10)).expect_code(1).json();
    assert_eq!(text(&output, "state"), "cancelled", "{output}");
    assert_eq!(text(&output["error"], "code"), "Cancelled", "{output}");
    until("nobody works on it", Duration::from_secs(5), || {
        let workers = stack.warren(&["workers", "--json"]).ok().json_lines();
        let idle = |worker: &Value| worker["running"].as_array().is_some_and(Vec::is_empty);
        workers.iter().all(idle).then_some(())
    });
}

fn exit_codes_tell_what_went_wrong(stack: &Stack) {
    let voice = inaugural();
    let voice = path(&voice.path);

    let refused = stack.warren(&["transcribe", "--json", "--model", "huge", voice]).expect_code(1).json();
    assert_eq!(keys(&refused), ["error", "file", "state"]);
    assert_eq!((text(&refused, "state"), text(&refused["error"], "code")), ("failed", "ModelUnknown"));
    assert!(text(&refused["error"], "message").contains("tiny.en"), "it names those that there are: {refused}");

    // One that fails does not keep the others from being done.
    let missing = stack.folder().join("no such file.wav");
    let output = stack.warren(&["transcribe", "--json", "--model", "tiny.en", path(&missing), voice]).expect_code(1);
    let lines = output.json_lines();
    assert_eq!(lines.len(), 2);
    assert_eq!((text(&lines[0], "state"), text(&lines[0]["error"], "code")), ("failed", "InputInvalid"));
    assert_eq!(text(&lines[1], "state"), "succeeded");

    for wrong in [
        &["transcribe"][..],
        &["no-such-command"],
        &["transcribe", "--format", "pdf", voice],
        &["up", "--detach", "--workers", "speech=1"],
        &["up", "--detach", "--coordinators", "0"],
    ] {
        let output = stack.warren(wrong).expect_code(2);
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{wrong:?}: diagnostics go to stderr");
    }
    let output = stack.warren_within(Duration::from_secs(60), &["embed", "--json", "-"], "").expect_code(2);
    assert!(output.stderr.contains("standard input"), "{}", output.stderr);
    let output = stack.warren(&["watch", "job_00000000-0000-7000-8000-000000000000"]).expect_code(1);
    assert!(!output.stderr.is_empty());
    let output =
        stack.warren(&["transcribe", "--json", "--model", "tiny.en", "--language", "fr", voice]).expect_code(1);
    assert_eq!(text(&output.json()["error"], "code"), "Unsupported");
}

fn a_second_start_changes_nothing(stack: &Stack) {
    let before = stack.ps();
    let output = stack.warren(&["up", "--detach", "--json"]).ok();
    assert!(output.stderr.contains("unchanged"), "{}", output.stderr);
    assert_eq!(output.json(), stack.endpoints());
    assert_eq!(stack.ps(), before);
}

fn settings_that_cannot_be_used_change_nothing(stack: &Stack) {
    let before = stack.ps();
    let overrides = stack.data().join("overrides.toml");
    let sound = fs::read_to_string(&overrides).expect("written at the start");
    for (changes, says) in [
        ("[transcription.work]\nslots = \n", "overrides.toml, line 2"),
        ("[transcripton.work]\nslots = 1\n", "overrides.toml, line 1"),
        ("[transcription.work]\nslotss = 1\n", "slotss"),
        ("[transcription.models]\nhub = 'hub.example'\n", "models.hub"),
    ] {
        fs::write(&overrides, changes).expect("written");
        let arguments = ["up", "--detach", "--workers", "batch-embedding=2"];
        let output = stack.warren_within(Duration::from_secs(20), &arguments, "").expect_code(2);
        assert!(output.stderr.contains(says) && output.stderr.contains("overrides.toml"), "{}", output.stderr);
        assert_eq!(stack.ps(), before);
    }
    fs::write(&overrides, sound).expect("written");
    assert!(stack.warren(&["up", "--detach"]).ok().stderr.contains("unchanged"), "nothing was saved");
}

fn a_log_is_shown_by_line(stack: &Stack) {
    let lines = stack.warren(&["logs", "--json", "-n", "3", "ingest"]).ok().json_lines();
    assert!(!lines.is_empty() && lines.iter().all(|line| keys(line) == ["line", "service"]), "{lines:?}");
    let unknown = stack.warren(&["logs", "inges"]).expect_code(2);
    assert!(unknown.stderr.contains("ingest"), "{}", unknown.stderr);
}

fn weights_are_copied_for_another_machine(stack: &Stack) {
    let copy = stack.folder().join("copy");
    let pulled = stack.warren(&["models", "pull", "--json", "tiny.en", "--to", path(&copy)]).ok().json();
    let expected = json!({"name": "tiny.en", "fetched": false, "source": null, "copied_to": path(&copy)});
    assert_eq!(pulled, expected);

    let there = |arguments: &[&str]| {
        let arguments: Vec<_> = ["models", "--json", "--cache", path(&copy)].iter().chain(arguments).copied().collect();
        stack.warren(&arguments).ok()
    };
    let listed = there(&["list"]).json_lines();
    let here: Vec<_> = listed.iter().filter(|model| text(model, "status") == "yes").map(|m| text(m, "name")).collect();
    assert_eq!(here, ["tiny.en"]);
    assert_eq!(there(&["rm", "tiny.en"]).json(), json!({"name": "tiny.en", "removed": true}));
    assert_eq!(there(&["rm", "tiny.en"]).json(), json!({"name": "tiny.en", "removed": false}));
}

fn the_doctor_finds_nothing_amiss(stack: &Stack) {
    let findings = stack.warren(&["doctor", "--json"]).ok().json_lines();
    let of = |what: &str| findings.iter().filter(|finding| finding["what"] == what).count();
    assert_eq!((of("service"), of("model")), (stack.ps().len(), 2), "{findings:?}");
}

fn a_stack_can_grow_and_shrink(stack: &Stack) {
    let before = stack.ps();
    let embedders = |services: &[warren_tests::stack::Service]| {
        services.iter().filter(|service| service.name.starts_with("batch-embedding")).count()
    };
    stack.warren(&["up", "--detach", "--workers", "batch-embedding=2"]).ok();
    let grown = stack.ps();
    assert_eq!(embedders(&grown), 2);
    assert!(before.iter().all(|service| grown.contains(service)), "the others stay: {before:?} {grown:?}");
    stack.warren(&["up", "--detach", "--workers", "batch-embedding=1"]).ok();
    assert_eq!(stack.ps(), before);
    // And it still works.
    let silence = stack.folder().join("silence.wav");
    wave::write(&silence, &vec![0; 16_000]);
    let heard = stack.warren(&["transcribe", "--json", "--model", "tiny.en", path(&silence)]).ok().json();
    assert_eq!(text(&heard, "text"), "");
}
