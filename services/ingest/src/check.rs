//! What may be asked of a job: every field checked, every default filled in.

use tonic::Status;
use warren_fault::Code;
use warren_jobs::{JobClass, plan::MAX_TEXTS_BYTES};
use warren_messages::{
    MAX_BEAM_SIZE,
    ids::{InvalidId, MediaId},
    wire,
};
use warren_models::{Catalogue, Family, Languages, Model};
use warren_store::{JobLimits, Media};

use crate::{
    languages,
    room::Room,
    settings::{DefaultSettings, LimitSettings},
    status::{invalid, refused},
};

/// Characters of a request id.
const REQUEST_ID: usize = 200;
/// With less address space, ffmpeg does not even start.
const LEAST_MEMORY_MB: u32 = 512;

/// The rules of this installation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules<'a> {
    /// The models there are.
    pub(crate) catalogue: &'a Catalogue,
    /// What is used when nothing is named.
    pub(crate) defaults: &'a DefaultSettings,
    /// What is too much.
    pub(crate) limits: &'a LimitSettings,
    /// Where models may run.
    pub(crate) room: &'a Room,
}

impl Rules<'_> {
    /// A transcribe job, with its defaults filled in.
    ///
    /// # Errors
    /// The field that is wrong.
    pub(crate) fn transcribe(&self, spec: &wire::TranscribeSpec) -> Result<(MediaId, wire::TranscribeSpec), Status> {
        if spec.media.is_empty() {
            return Err(invalid("transcribe.media", "is required: upload the recording first, with Media.Upload"));
        }
        let media = spec.media.parse().map_err(|error: InvalidId| invalid("transcribe.media", error.to_string()))?;
        let asked = self.speech_model(&spec.model)?;
        let language = self.language(asked, spec)?;
        let model = self.fitting(asked, spec, &language)?;
        let downgraded_from = if model.name == asked.name { String::new() } else { asked.name.clone() };
        let embedding_model = if spec.index || !spec.embedding_model.is_empty() {
            self.embedding_model("transcribe.embedding_model", &spec.embedding_model)?.name.clone()
        } else {
            String::new()
        };
        let model = model.name.clone();
        let (quality, beam_size) = decoding(spec)?;
        let filled = wire::TranscribeSpec {
            model,
            language,
            embedding_model,
            downgraded_from,
            quality: quality.into(),
            beam_size,
            ..spec.clone()
        };
        Ok((media, filled))
    }

    /// The model that is used: the one that was asked for, or a smaller one if it does not fit and the caller allows it.
    fn fitting<'m>(
        &'m self,
        asked: &'m Model,
        spec: &wire::TranscribeSpec,
        language: &str,
    ) -> Result<&'m Model, Status> {
        if self.room.fits(asked) {
            return Ok(asked);
        }
        let able = |model: &Model| {
            model.family == Family::Whisper
                && (model.translate || !spec.translate)
                && (model.languages == Languages::Multilingual || (language == "en" && !spec.translate))
                && (language.is_empty() || languages::understands(&model.name, language))
        };
        let smaller = self.room.next_smaller(self.catalogue, asked, able);
        smaller.filter(|_| spec.allow_downgrade).ok_or_else(|| self.room.refuse("transcribe.model", asked, smaller))
    }

    fn speech_model(&self, name: &str) -> Result<&Model, Status> {
        let model = self.model("transcribe.model", name, &self.defaults.speech_model)?;
        if model.family == Family::Whisper {
            return Ok(model);
        }
        let problem = format!(
            "`{}` makes vectors of texts; use {}",
            model.name,
            self.names(|model| model.family == Family::Whisper)
        );
        Err(refused("transcribe.model", Code::Unsupported, problem))
    }

    /// The language as it is given on: empty when it has to be found out.
    fn language(&self, model: &Model, spec: &wire::TranscribeSpec) -> Result<String, Status> {
        let language = spec.language.trim().to_ascii_lowercase();
        let unsupported = |field: &str, problem: String| Err(refused(field, Code::Unsupported, problem));
        if spec.translate && !model.translate {
            let others = self.names(|model| model.translate);
            return unsupported("transcribe.translate", format!("`{}` cannot translate; use {others}", model.name));
        }
        match (model.languages, language.as_str()) {
            (Languages::English, "" | "en") => Ok("en".to_owned()),
            (Languages::English, other) => {
                let others =
                    self.names(|model| model.family == Family::Whisper && model.languages == Languages::Multilingual);
                let problem = format!("`{}` understands only English; for `{other}` use {others}", model.name);
                unsupported("transcribe.language", problem)
            }
            (Languages::Multilingual, "") => Ok(language),
            (Languages::Multilingual, known) if languages::understands(&model.name, known) => Ok(language),
            (Languages::Multilingual, other) => {
                let other: String = other.chars().take(40).collect();
                let problem = format!(
                    "`{}` does not know `{other}`; give an ISO 639-1 code such as `en`, or leave it empty to have it found",
                    model.name
                );
                unsupported("transcribe.language", problem)
            }
        }
    }

    /// An embed job, with its defaults filled in and its texts still inside.
    ///
    /// # Errors
    /// The field that is wrong; of the texts, the first by its index.
    pub(crate) fn embed(&self, spec: wire::EmbedSpec) -> Result<wire::EmbedSpec, Status> {
        self.texts(&spec.texts)?;
        let model = self.embedding_model("embed.model", &spec.model)?.name.clone();
        Ok(wire::EmbedSpec { model, ..spec })
    }

    fn texts(&self, texts: &[String]) -> Result<(), Status> {
        let LimitSettings { texts: most, text_bytes, .. } = *self.limits;
        if texts.is_empty() {
            return Err(invalid("embed.texts", "is empty; give at least one text"));
        }
        if texts.len() > most {
            let problem = format!("holds {} texts, {most} are allowed; make several jobs of it", texts.len());
            return Err(refused("embed.texts", Code::InputTooLarge, problem));
        }
        let mut total = 0;
        for (index, text) in texts.iter().enumerate() {
            let field = || format!("embed.texts[{index}]");
            if text.trim().is_empty() {
                return Err(invalid(&field(), "is empty; leave it out"));
            }
            if text.len() > text_bytes {
                let problem = format!("has {} bytes, {text_bytes} are allowed; cut it into pieces", text.len());
                return Err(refused(&field(), Code::InputTooLong, problem));
            }
            total += text.len();
        }
        if total > MAX_TEXTS_BYTES {
            let problem =
                format!("hold {total} bytes together, {MAX_TEXTS_BYTES} are allowed; make several jobs of it");
            return Err(refused("embed.texts", Code::InputTooLarge, problem));
        }
        Ok(())
    }

    /// The embedding model of this name, or the default one.
    ///
    /// # Errors
    /// `NOT_FOUND` lists the names there are; `INVALID_ARGUMENT` for a model that makes no vectors.
    pub(crate) fn embedding_model(&self, field: &str, name: &str) -> Result<&Model, Status> {
        let model = self.model(field, name, &self.defaults.embedding_model)?;
        if model.embedding.is_some() {
            // Another model's vectors are no smaller ones but others, so nothing is put in its place.
            return if self.room.fits(model) { Ok(model) } else { Err(self.room.refuse(field, model, None)) };
        }
        let problem =
            format!("`{}` makes no vectors; use {}", model.name, self.names(|model| model.embedding.is_some()));
        Err(refused(field, Code::Unsupported, problem))
    }

    fn model(&self, field: &str, name: &str, default: &str) -> Result<&Model, Status> {
        let name = if name.is_empty() { default } else { name };
        self.catalogue.get(name).map_err(|error| refused(field, Code::ModelUnknown, error.to_string()))
    }

    fn names(&self, fits: impl Fn(&Model) -> bool) -> String {
        let names: Vec<_> =
            self.catalogue.models().iter().filter(|model| fits(model)).map(|model| &*model.name).collect();
        names.join(", ")
    }

    /// A recording of this size, for a job with these limits: the copy of it that may have to be made is too large.
    ///
    /// # Errors
    /// `InsufficientDisk` with the arithmetic.
    pub(crate) fn size(media: &Media, limits: &JobLimits) -> Result<(), Status> {
        let allowed = limits.max_disk_mb.saturating_mul(1_000_000);
        if allowed > 0 && media.size_bytes > allowed {
            let megabytes = |bytes: i64| bytes as f64 / 1e6;
            let problem = format!(
                "{:.1} MB are not enough: a copy of `{}` alone takes {:.1}",
                megabytes(allowed),
                media.name,
                megabytes(media.size_bytes)
            );
            return Err(refused("limits.max_disk_mb", Code::InsufficientDisk, problem));
        }
        Ok(())
    }
}

/// What a job may take; 0 is left to the coordinator.
///
/// # Errors
/// The limit that cannot be.
pub(crate) fn limits(asked: &wire::JobLimits, most: &LimitSettings) -> Result<JobLimits, Status> {
    let wire::JobLimits { timeout_s, soft_timeout_s, max_memory_mb, max_disk_mb } = *asked;
    if timeout_s > most.timeout_s {
        let problem = format!("must be at most {}, is {timeout_s}", most.timeout_s);
        return Err(invalid("limits.timeout_s", problem));
    }
    let hard = if timeout_s > 0 { timeout_s } else { most.timeout_s };
    if soft_timeout_s >= hard {
        let problem = format!("must be less than the hard limit of {hard}, is {soft_timeout_s}");
        return Err(invalid("limits.soft_timeout_s", problem));
    }
    if (1..LEAST_MEMORY_MB).contains(&max_memory_mb) {
        let problem = format!("must be at least {LEAST_MEMORY_MB}, which ffmpeg needs, is {max_memory_mb}");
        return Err(invalid("limits.max_memory_mb", problem));
    }
    Ok(JobLimits {
        timeout_s: timeout_s.into(),
        soft_timeout_s: soft_timeout_s.into(),
        max_memory_mb: max_memory_mb.into(),
        max_disk_mb: max_disk_mb.into(),
    })
}

/// Who waits.
///
/// # Errors
/// When it is none of the classes.
pub(crate) fn class(class: i32) -> Result<JobClass, Status> {
    match wire::JobClass::try_from(class) {
        Ok(wire::JobClass::Unspecified | wire::JobClass::Default) => Ok(JobClass::Default),
        Ok(wire::JobClass::Interactive) => Ok(JobClass::Interactive),
        Ok(wire::JobClass::Batch) => Ok(JobClass::Batch),
        Err(_) => Err(invalid("class", format!("{class} is none of INTERACTIVE, DEFAULT, BATCH"))),
    }
}

/// How a recording is decoded.
fn decoding(spec: &wire::TranscribeSpec) -> Result<(wire::Quality, u32), Status> {
    if wire::Quality::try_from(spec.quality).is_err() {
        return Err(invalid("transcribe.quality", format!("{} is none of FAST, BALANCED, BEST", spec.quality)));
    }
    let (quality, beam_size) = spec.decoding();
    if beam_size > MAX_BEAM_SIZE {
        return Err(invalid("transcribe.beam_size", format!("is {beam_size}; at most {MAX_BEAM_SIZE} are followed")));
    }
    Ok((quality, beam_size))
}

/// A request id; `None` when there is none.
///
/// # Errors
/// When it is too long, or not plain text.
pub(crate) fn request_id(id: &str) -> Result<Option<String>, Status> {
    if id.chars().count() > REQUEST_ID || id.chars().any(char::is_control) {
        return Err(invalid("request_id", format!("must be plain text of at most {REQUEST_ID} characters")));
    }
    Ok((!id.is_empty()).then(|| id.to_owned()))
}

#[cfg(test)]
mod tests {
    use tonic::Code as Grpc;
    use tonic_types::StatusExt as _;
    use warren_store::Device;

    use super::*;

    const MEDIA: &str = "media_00000000-0000-0000-0000-000000000007";

    fn with<T>(check: impl FnOnce(Rules<'_>) -> T) -> T {
        let limits = LimitSettings { texts: 3, text_bytes: 10, ..LimitSettings::default() };
        with_room(check, &limits, &Room::default())
    }

    fn with_room<T>(check: impl FnOnce(Rules<'_>) -> T, limits: &LimitSettings, room: &Room) -> T {
        check(Rules { catalogue: &Catalogue::builtin(), defaults: &DefaultSettings::default(), limits, room })
    }

    /// On a device with this much memory for models.
    fn on(gigabytes: i64, spec: wire::TranscribeSpec) -> Result<wire::TranscribeSpec, Status> {
        let memory_bytes = gigabytes * 1_000_000_000;
        let device = Device { name: "cuda:0".to_owned(), last_fence: 0, memory_bytes, max_concurrent: 1 };
        let room = Room::new(&[device], &JobLimits::default());
        let spec = wire::TranscribeSpec { media: MEDIA.to_owned(), ..spec };
        with_room(|rules| rules.transcribe(&spec).map(|(_, spec)| spec), &LimitSettings::default(), &room)
    }

    fn transcribe(change: impl FnOnce(&mut wire::TranscribeSpec)) -> Result<wire::TranscribeSpec, Status> {
        let mut spec = wire::TranscribeSpec { media: MEDIA.to_owned(), ..Default::default() };
        change(&mut spec);
        with(|rules| rules.transcribe(&spec).map(|(_, spec)| spec))
    }

    fn embed(texts: &[&str], model: &str) -> Result<wire::EmbedSpec, Status> {
        let texts = texts.iter().map(|text| (*text).to_owned()).collect();
        with(|rules| rules.embed(wire::EmbedSpec { texts, model: model.to_owned(), index: false }))
    }

    fn is(status: Status, grpc: Grpc, reason: &str, says: &[&str]) {
        assert_eq!(status.code(), grpc, "{status}");
        assert_eq!(status.get_error_details().error_info().expect("a code").reason, reason, "{status}");
        for word in says {
            assert!(status.message().contains(word), "{word}: {status}");
        }
    }

    #[test]
    fn defaults_and_aliases_become_names() {
        let spec = transcribe(|_| {}).expect("valid");
        assert_eq!((spec.model.as_str(), spec.language.as_str(), spec.embedding_model.as_str()), ("base", "", ""));
        let spec = transcribe(|spec| {
            spec.model = "whisper-1".to_owned();
            spec.language = "DE".to_owned();
            spec.index = true;
        });
        let spec = spec.expect("valid");
        assert_eq!((spec.model.as_str(), spec.language.as_str()), ("base", "de"));
        assert_eq!(spec.embedding_model, "all-MiniLM-L6-v2");
        assert_eq!(embed(&["a"], "minilm").expect("valid").model, "all-MiniLM-L6-v2");
    }

    #[test]
    fn care_in_decoding_is_filled_in_and_bounded() {
        let decoded = |quality: i32, beam_size| {
            let spec = transcribe(|spec| (spec.quality, spec.beam_size) = (quality, beam_size));
            spec.map(|spec| (spec.quality(), spec.beam_size))
        };
        assert_eq!(decoded(0, 0).expect("valid"), (wire::Quality::Balanced, 1));
        assert_eq!(decoded(wire::Quality::Best.into(), 0).expect("valid"), (wire::Quality::Best, 5));
        assert_eq!(decoded(wire::Quality::Best.into(), 8).expect("valid"), (wire::Quality::Best, 8));
        let status = decoded(0, 9).expect_err("nine");
        is(status, Grpc::InvalidArgument, "InputInvalid", &["transcribe.beam_size", "9", "at most 8"]);
        is(decoded(7, 0).expect_err("7"), Grpc::InvalidArgument, "InputInvalid", &["transcribe.quality", "7", "BEST"]);
    }

    #[test]
    fn an_english_model_hears_english() {
        let spec = transcribe(|spec| spec.model = "tiny.en".to_owned()).expect("valid");
        assert_eq!(spec.language, "en");
        let german = transcribe(|spec| {
            spec.model = "tiny.en".to_owned();
            spec.language = "de".to_owned();
        });
        is(german.expect_err("German"), Grpc::InvalidArgument, "Unsupported", &["transcribe.language", "`de`", "base"]);
        let translated = transcribe(|spec| {
            spec.model = "tiny.en".to_owned();
            spec.translate = true;
        });
        let says = ["transcribe.translate", "base, small"];
        is(translated.expect_err("translate"), Grpc::InvalidArgument, "Unsupported", &says);
    }

    #[test]
    fn turbo_translates_nothing_and_says_who_does() {
        let translated = transcribe(|spec| {
            spec.model = "turbo".to_owned();
            spec.translate = true;
        });
        let says = ["`large-v3-turbo` cannot translate; use base, small, medium, large-v3"];
        is(translated.expect_err("translate"), Grpc::InvalidArgument, "Unsupported", &says);
    }

    #[test]
    fn a_model_that_fits_nowhere_is_refused_or_replaced_by_one_that_can_do_the_same() {
        let large = || wire::TranscribeSpec { model: "large".to_owned(), ..Default::default() };
        let says = ["transcribe.model", "needs 10.0 GB", "cuda:0, has 8.0 GB", "large-v3-turbo (6.0 GB)"];
        is(on(8, large()).expect_err("too large"), Grpc::InvalidArgument, "OutOfMemory", &says);
        let allowed = || wire::TranscribeSpec { allow_downgrade: true, ..large() };
        let used = |gigabytes, spec| {
            let spec = on(gigabytes, spec).expect("replaced");
            (spec.model, spec.downgraded_from)
        };
        let from_large = |model: &str| (model.to_owned(), "large-v3".to_owned());
        assert_eq!(used(10, allowed()), ("large-v3".to_owned(), String::new()));
        assert_eq!(used(8, allowed()), from_large("large-v3-turbo"));
        assert_eq!(used(8, wire::TranscribeSpec { translate: true, ..allowed() }), from_large("medium"));
        assert_eq!(used(2, allowed()), from_large("base"));
        let pretended = wire::TranscribeSpec { downgraded_from: "large-v3".to_owned(), ..Default::default() };
        assert_eq!(used(2, pretended), ("base".to_owned(), String::new()), "only the server says so");
        // Only English may go to a model of English alone, and texts in no case to another model.
        let tight = wire::TranscribeSpec { model: "base".to_owned(), allow_downgrade: true, ..Default::default() };
        let small = Room::new(&[], &JobLimits { max_memory_mb: 700, ..JobLimits::default() });
        let on_little = |language: &str| {
            let spec = wire::TranscribeSpec { media: MEDIA.to_owned(), language: language.to_owned(), ..tight.clone() };
            with_room(|rules| rules.transcribe(&spec).map(|(_, spec)| spec.model), &LimitSettings::default(), &small)
        };
        assert_eq!(on_little("en").expect("English"), "tiny.en");
        is(on_little("de").expect_err("German"), Grpc::InvalidArgument, "OutOfMemory", &["no model"]);
        let none = Room::new(&[], &JobLimits { max_memory_mb: 1, ..JobLimits::default() });
        let embed = wire::EmbedSpec { texts: vec!["a".to_owned()], ..Default::default() };
        let refused = with_room(|rules| rules.embed(embed), &LimitSettings::default(), &none);
        is(refused.expect_err("no room"), Grpc::InvalidArgument, "OutOfMemory", &["embed.model", "0.5 GB"]);
    }

    #[test]
    fn limits_that_cannot_be_are_named() {
        let most = LimitSettings::default();
        let none = wire::JobLimits::default();
        assert_eq!(limits(&none, &most).expect("none"), JobLimits::default());
        let own = wire::JobLimits { timeout_s: 60, soft_timeout_s: 30, max_memory_mb: 512, max_disk_mb: 1 };
        assert_eq!(limits(&own, &most).expect("fine").soft_timeout_s, 30);
        for (wrong, field) in [
            (wire::JobLimits { timeout_s: 172_801, ..none }, "limits.timeout_s"),
            (wire::JobLimits { soft_timeout_s: 60, ..own }, "limits.soft_timeout_s"),
            (wire::JobLimits { max_memory_mb: 511, ..none }, "limits.max_memory_mb"),
        ] {
            let status = limits(&wrong, &most).expect_err(field);
            assert!(status.message().starts_with(field), "{status}");
        }
    }

    #[test]
    fn media_and_models_that_cannot_be_are_refused() {
        let status = transcribe(|spec| spec.media.clear()).expect_err("no media");
        is(status, Grpc::InvalidArgument, "InputInvalid", &["transcribe.media", "Media.Upload"]);
        let status = transcribe(|spec| spec.media = "job_1".to_owned()).expect_err("no media id");
        is(status, Grpc::InvalidArgument, "InputInvalid", &["transcribe.media", "`job_1`"]);
        let status = transcribe(|spec| spec.model = "huge".to_owned()).expect_err("no such model");
        is(status, Grpc::NotFound, "ModelUnknown", &["transcribe.model", "`huge`", "tiny.en, base"]);
        let status = transcribe(|spec| spec.model = "minilm".to_owned()).expect_err("no speech model");
        is(status, Grpc::InvalidArgument, "Unsupported", &["all-MiniLM-L6-v2", "tiny.en"]);
        let status = transcribe(|spec| spec.language = "klingon".to_owned()).expect_err("no language");
        is(status, Grpc::InvalidArgument, "Unsupported", &["transcribe.language", "`klingon`"]);
        is(embed(&["a"], "base").expect_err("speech"), Grpc::InvalidArgument, "Unsupported", &["embed.model"]);
    }

    #[test]
    fn texts_are_counted_and_weighed() {
        is(embed(&[], "").expect_err("none"), Grpc::InvalidArgument, "InputInvalid", &["embed.texts:"]);
        is(embed(&["a", " \n"], "").expect_err("blank"), Grpc::InvalidArgument, "InputInvalid", &["embed.texts[1]"]);
        is(embed(&["a"; 4], "").expect_err("four"), Grpc::InvalidArgument, "InputTooLarge", &["4 texts, 3"]);
        let status = embed(&["a", "b", "eleven byte"], "").expect_err("long");
        is(status, Grpc::InvalidArgument, "InputTooLong", &["embed.texts[2]", "11 bytes, 10"]);
    }

    #[test]
    fn the_rest_of_a_request_is_checked_too() {
        assert_eq!(class(0).expect("unspecified"), JobClass::Default);
        assert!(class(9).expect_err("none").message().contains("class"));
        assert_eq!(request_id("").expect("none"), None);
        assert!(request_id(&"x".repeat(201)).is_err() && request_id("a\nb").is_err());
    }
}
