//! The models of a worker.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use tokio::task::spawn_blocking;
use warren_fault::{Code, Fault};
use warren_host::Part;
use warren_inference::{Device, InferenceError, Memory, Probe};
use warren_leases::TaskInHand;
use warren_models::{Cache, Catalogue, Family, Model, ModelDir, ModelError, ModelsSettings, PullOptions, Status};
use warren_telemetry::metrics;

use crate::{WorkSettings, memory};

/// How often the memory among the metrics is brought up to date.
const SHOW: Duration = Duration::from_secs(2);
/// How often the files are looked at for damage.
const CHECK_EVERY: Duration = Duration::from_secs(5);

/// A kind of model that this worker runs.
pub trait Loadable: Sized + Send + Sync + 'static {
    /// Which models of the catalogue are of this kind.
    const FAMILY: Family;

    /// Inputs in one forward pass at most, unless the settings say otherwise.
    fn rows(device: Device) -> usize;

    /// Loads the weights.
    ///
    /// # Errors
    /// [`InferenceError`]; the message names the file at fault.
    fn load(model: &Model, files: &ModelDir, device: Device) -> Result<Self, InferenceError>;
}

/// Finds, fetches, checks and keeps models. Cheap to clone.
#[derive(Debug)]
pub struct Shelf<M>(Arc<Inner<M>>);

impl<M> Clone for Shelf<M> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

#[derive(Debug)]
struct Inner<M> {
    catalogue: Catalogue,
    cache: Cache,
    device: Device,
    pull: bool,
    most: usize,
    /// Inputs in one forward pass at most.
    rows: usize,
    /// Opened when it is first needed; `None` where the device cannot be looked at.
    probe: OnceLock<Option<Probe>>,
    loaded: Mutex<HashMap<String, Arc<Place<M>>>>,
}

/// Where one model is, once it is loaded.
#[derive(Debug)]
struct Place<M> {
    model: Mutex<Option<Arc<M>>>,
    used: Mutex<Instant>,
}

impl<M> Place<M> {
    /// It is loaded, and in nobody's hands. A place that somebody holds is being loaded or about to be used.
    fn is_idle(self: &Arc<Self>) -> bool {
        let unused = |model: &Option<Arc<M>>| model.as_ref().is_some_and(|model| Arc::strong_count(model) == 1);
        Arc::strong_count(self) == 1 && self.model.try_lock().is_ok_and(|model| unused(&model))
    }

    /// Its load failed, and nobody tries it now.
    fn is_empty(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) == 1 && self.model.try_lock().is_ok_and(|model| model.is_none())
    }
}

/// Somebody else has what `model` needs; `own` bytes are reckoned for the models loaded here.
fn occupied(model: &Model, device: Device, memory: Memory, own: u64) -> InferenceError {
    let others = memory.total.saturating_sub(memory.free).saturating_sub(own);
    let [need, free, total, own, others] =
        [model.memory_bytes, memory.free, memory.total, own, others].map(memory::told);
    InferenceError::Occupied(format!(
        "`{}` needs {need} and {device} has {free} free of {total}: models of this worker hold {own}, other programs \
         {others}",
        model.name
    ))
}

fn not_there(error: ModelError, model: &Model) -> InferenceError {
    match error {
        ModelError::Missing { cache, .. } => InferenceError::ModelMissing { path: cache.join(&model.name) },
        ModelError::Corrupt { file, reason, .. } => InferenceError::ModelCorrupt { path: file.into(), reason },
        other => InferenceError::Internal(other.to_string()),
    }
}

impl<M: Loadable> Shelf<M> {
    /// A shelf of the built-in catalogue.
    pub fn new(models: &ModelsSettings, work: &WorkSettings, device: Device) -> Self {
        Self(Arc::new(Inner {
            catalogue: Catalogue::builtin(),
            cache: Cache::with(models),
            device,
            pull: work.pull,
            most: work.models_loaded,
            rows: if work.batch == 0 { M::rows(device) } else { work.batch },
            probe: OnceLock::new(),
            loaded: Mutex::default(),
        }))
    }

    /// Where the models run.
    pub fn device(&self) -> Device {
        self.0.device
    }

    /// Inputs in one forward pass at most.
    pub(crate) fn rows(&self) -> usize {
        self.0.rows
    }

    /// What the device has left, if it says so. Blocks.
    pub(crate) fn memory(&self) -> Option<Memory> {
        let probe = self.0.probe.get_or_init(|| Probe::open(self.0.device).ok());
        memory::of(probe.as_ref()?, self.0.device)
    }

    /// Shows the device's memory among the metrics, under the name that it has with the coordinator. Never opens a device:
    /// that would take memory on it, and nobody has leased it for that.
    pub(crate) async fn show_memory(&self, device: &str) {
        let mut every = tokio::time::interval(SHOW);
        loop {
            every.tick().await;
            if let Some(Some(probe)) = self.0.probe.get()
                && let Some(memory) = memory::of(probe, self.0.device)
            {
                let used = memory.total.saturating_sub(memory.free);
                metrics::DEVICE_USED.set(used as f64, &[("device", device)]);
                metrics::DEVICE_TOTAL.set(memory.total as f64, &[("device", device)]);
            }
        }
    }

    /// Bytes that the work on the model needed at most: of the device, or of this process on the processor.
    pub(crate) fn peak(&self) -> u64 {
        match self.0.device {
            Device::Cpu => memory::peak(),
            Device::Cuda(_) => self.memory().map_or(0, |memory| memory.total.saturating_sub(memory.free)),
        }
    }

    /// Makes room for `model`, which is not loaded: idle models go if that helps. What the device then still lacks, others
    /// have; our own models stay loaded for the work that they can do meanwhile.
    ///
    /// # Errors
    /// [`InferenceError::Occupied`] with the bytes.
    pub(crate) fn room(&self, model: &Model) -> Result<(), InferenceError> {
        let short = |memory: &Memory| memory.free < model.memory_bytes;
        let Some(memory) = self.memory().filter(short) else { return Ok(()) };
        let (own, idle) = self.reckoned(&model.name);
        if memory.free.saturating_add(idle) < model.memory_bytes {
            return Err(occupied(model, self.0.device, memory, own));
        }
        self.unload_idle(&model.name);
        match self.memory().filter(short) {
            Some(memory) => Err(occupied(model, self.0.device, memory, own - idle)),
            None => Ok(()),
        }
    }

    /// Bytes reckoned for the models loaded here but for the one that is `wanted`, and for the idle ones among them.
    fn reckoned(&self, wanted: &str) -> (u64, u64) {
        let places = self.0.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = |name: &str| self.0.catalogue.get(name).map_or(0, |model| model.memory_bytes);
        let (mut own, mut idle) = (0, 0);
        for (name, place) in places.iter().filter(|(name, _)| *name != wanted) {
            // One that is locked is being loaded.
            if place.model.try_lock().map_or(true, |model| model.is_some()) {
                own += bytes(name);
            }
            if place.is_idle() {
                idle += bytes(name);
            }
        }
        (own, idle)
    }

    /// Unloads every model that nobody uses, but for the one that is `wanted`.
    pub(crate) fn unload_idle(&self, wanted: &str) {
        self.make_room_for(wanted, 1);
    }

    /// The catalogue's entry.
    ///
    /// # Errors
    /// `ModelUnknown`, or `Unsupported` for a model of another kind; both are the caller's.
    pub fn model(&self, name: &str) -> Result<Model, Fault> {
        let model = self.0.catalogue.get(name).map_err(|error| error.fault())?;
        if model.family == M::FAMILY {
            Ok(model.clone())
        } else {
            Err(Fault::permanent(Code::Unsupported, format!("model `{name}` cannot do this kind of work")))
        }
    }

    /// The model's files, checked; fetched first if they are missing and the settings allow it. `None` when the model is
    /// loaded, and they are of no more use.
    ///
    /// # Errors
    /// `ModelMissing`, `ModelCorrupt`, `InsufficientDisk`: all for later, when somebody has mended it.
    pub async fn files(&self, model: &Model, task: &TaskInHand) -> Result<Option<ModelDir>, Fault> {
        if self.is_loaded(&model.name) {
            return Ok(None);
        }
        let shelf = self.clone();
        let (model, task) = (model.clone(), task.clone());
        let found = spawn_blocking(move || match shelf.0.cache.open(&model) {
            Err(ModelError::Missing { .. }) if shelf.0.pull => {
                task.now(&format!("fetching model {}", model.name));
                tracing::info!(model = model.name, "fetching the model");
                shelf.0.cache.pull(&model, PullOptions::default(), &|_| ())?;
                shelf.0.cache.open(&model)
            }
            found => found,
        });
        let found = found.await.map_err(|panic| Fault::retryable(Code::Internal, panic.to_string()))?;
        found.map(Some).map_err(|error| error.fault())
    }

    fn is_loaded(&self, name: &str) -> bool {
        let places = self.0.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        places.get(name).is_some_and(|place| place.model.try_lock().is_ok_and(|model| model.is_some()))
    }

    /// The model, loaded. Blocks while it is being loaded, here or for another task.
    ///
    /// # Errors
    /// What loading it fails with.
    pub fn open(&self, model: &Model, files: Option<&ModelDir>) -> Result<Arc<M>, InferenceError> {
        let place = self.place(&model.name);
        let mut loaded = place.model.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(loaded) = &*loaded {
            return Ok(loaded.clone());
        }
        let found;
        let files = match files {
            Some(files) => files,
            // It was loaded when somebody asked for its files, and had to make room since.
            None => {
                found = self.0.cache.open(model).map_err(|error| not_there(error, model))?;
                &found
            }
        };
        // In this order: what cannot be loaded now takes nobody's place.
        self.room(model)?;
        self.make_room_for(&model.name, self.0.most);
        let started = Instant::now();
        let fresh = Arc::new(M::load(model, files, self.0.device)?);
        let seconds = started.elapsed().as_secs_f64();
        metrics::MODEL_LOAD_SECONDS.record(seconds, &[("model", &model.name)]);
        tracing::info!(model = model.name, device = %self.0.device, seconds, "model loaded");
        *loaded = Some(fresh.clone());
        Ok(fresh)
    }

    fn place(&self, name: &str) -> Arc<Place<M>> {
        let mut places = self.0.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(Place { model: Mutex::new(None), used: Mutex::new(Instant::now()) });
        let place = places.entry(name.to_owned()).or_insert_with(new).clone();
        *place.used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        place
    }

    /// Unloads what was used longest ago and is in nobody's hands, until no more than `most` models are left.
    fn make_room_for(&self, wanted: &str, most: usize) {
        let mut places = self.0.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        places.retain(|name, place| name == wanted || !place.is_empty());
        while places.len() > most {
            let oldest = places
                .iter()
                .filter(|(name, place)| *name != wanted && place.is_idle())
                .min_by_key(|(_, place)| *place.used.lock().unwrap_or_else(PoisonError::into_inner))
                .map(|(name, _)| name.clone());
            let Some(oldest) = oldest else { return };
            places.remove(&oldest);
            tracing::info!(model = oldest, "model unloaded to make room");
        }
    }

    /// Keeps `part` ready while no model in the cache is damaged, and there is one or one may be fetched.
    pub async fn watch(&self, part: &Part) {
        loop {
            let shelf = self.clone();
            // A panic is in the log; the next look may fare better.
            if let Ok(trouble) = spawn_blocking(move || shelf.damaged().or_else(|| shelf.empty())).await {
                part.set(trouble.map_or(Ok(()), Err));
            }
            tokio::time::sleep(CHECK_EVERY).await;
        }
    }

    /// The models in the cache that are of this worker's kind, whole or damaged.
    fn here(&self) -> impl Iterator<Item = &Model> {
        let models = self.0.catalogue.models().iter().filter(|model| model.family == M::FAMILY);
        models.filter(|model| self.0.cache.status(model) != Status::Missing)
    }

    /// Why no task can be done, whatever model it names: no weights are here and none may be fetched.
    fn empty(&self) -> Option<String> {
        (!self.0.pull && self.here().next().is_none()).then(|| {
            let (usual, cache) = (M::FAMILY.usual(), self.0.cache.dir().display());
            format!(
                "ModelMissing: {usual}: no model for this work is in {cache}, and work.pull is false; fetch it with \
                 `warren models pull {usual}`"
            )
        })
    }

    /// The first damaged model in the cache. Files are hashed once and again only when they change.
    fn damaged(&self) -> Option<String> {
        self.here().find_map(|model| match self.0.cache.check(model) {
            Status::Corrupt { file, reason } => Some(format!(
                "ModelCorrupt: {}: {file}: {reason}; mend it with `warren models pull --force {}`",
                model.name, model.name
            )),
            Status::Ready | Status::Missing => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[derive(Debug)]
    struct Fake(String);

    impl Loadable for Fake {
        const FAMILY: Family = Family::Whisper;

        fn rows(_device: Device) -> usize {
            8
        }

        fn load(model: &Model, _files: &ModelDir, _device: Device) -> Result<Self, InferenceError> {
            if model.name == "medium" {
                return Err(InferenceError::Internal("it never loads".to_owned()));
            }
            Ok(Self(model.name.clone()))
        }
    }

    fn shelf(most: usize) -> Shelf<Fake> {
        let work = WorkSettings { models_loaded: most, ..WorkSettings::default() };
        Shelf::new(&ModelsSettings::default(), &work, Device::Cpu)
    }

    fn open(shelf: &Shelf<Fake>, name: &str) -> Arc<Fake> {
        try_open(shelf, name).expect("loaded")
    }

    fn try_open(shelf: &Shelf<Fake>, name: &str) -> Result<Arc<Fake>, InferenceError> {
        let model = shelf.model(name).expect("in the catalogue");
        let nowhere = PathBuf::new;
        let files = ModelDir { name: name.to_owned(), weights: nowhere(), config: nowhere(), tokenizer: nowhere() };
        shelf.open(&model, Some(&files))
    }

    fn names(shelf: &Shelf<Fake>) -> Vec<String> {
        let mut names: Vec<_> = shelf.0.loaded.lock().unwrap().keys().cloned().collect();
        names.sort();
        names
    }

    #[test]
    fn a_model_is_loaded_once_and_makes_room_when_unused() {
        let shelf = shelf(2);
        let first = open(&shelf, "tiny.en");
        assert!(Arc::ptr_eq(&first, &open(&shelf, "tiny.en")));
        assert_eq!(first.0, "tiny.en");
        drop(first);
        drop(open(&shelf, "base"));
        drop(open(&shelf, "tiny.en"));
        drop(open(&shelf, "small"));
        assert_eq!(names(&shelf), ["small", "tiny.en"], "base was used longest ago");
    }

    #[test]
    fn what_others_hold_is_told_apart_from_ones_own() {
        let shelf = shelf(3);
        let (used, bytes) = (open(&shelf, "tiny.en"), |name| shelf.model(name).expect("in the catalogue").memory_bytes);
        drop(open(&shelf, "base"));
        assert_eq!(shelf.reckoned("small"), (bytes("tiny.en") + bytes("base"), bytes("base")));
        assert_eq!(shelf.reckoned("base"), (bytes("tiny.en"), 0));
        drop(used);
        let model = Model { memory_bytes: 2_000_000_000, ..shelf.model("small").expect("in the catalogue") };
        let memory = Memory { free: 1_000_000_000, total: 8_000_000_000 };
        assert_eq!(
            occupied(&model, Device::Cpu, memory, 3_000_000_000).to_string(),
            "`small` needs 2.0 GB and cpu has 1.0 GB free of 8.0 GB: models of this worker hold 3.0 GB, other programs \
             4.0 GB"
        );
    }

    #[test]
    fn without_weights_and_without_leave_to_fetch_them_nothing_can_be_done() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let models = ModelsSettings { cache: dir.path().to_owned(), ..ModelsSettings::default() };
        let shelf = |pull| Shelf::<Fake>::new(&models, &WorkSettings { pull, ..WorkSettings::default() }, Device::Cpu);
        let why = shelf(false).empty().expect("nothing is here");
        assert!(why.starts_with("ModelMissing: base") && why.contains("`warren models pull base`"), "{why}");
        assert!(why.contains(&dir.path().display().to_string()), "{why}");
        assert_eq!(shelf(true).empty(), None, "it is fetched when a task needs it");

        // A model of another kind is of no use; a damaged one is another trouble.
        std::fs::create_dir_all(dir.path().join("all-MiniLM-L6-v2")).expect("made");
        std::fs::write(dir.path().join("all-MiniLM-L6-v2/manifest.json"), "{").expect("written");
        assert!(shelf(false).damaged().is_none() && shelf(false).empty().is_some());
        std::fs::create_dir_all(dir.path().join("tiny.en")).expect("made");
        std::fs::write(dir.path().join("tiny.en/manifest.json"), "{").expect("written");
        assert!(shelf(false).damaged().is_some_and(|why| why.contains("ModelCorrupt: tiny.en")));
        assert_eq!(shelf(false).empty(), None);
    }

    #[test]
    fn files_are_looked_for_again_once_a_model_has_made_room() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let models = ModelsSettings { cache: dir.path().to_owned(), ..ModelsSettings::default() };
        let work = WorkSettings { models_loaded: 1, ..WorkSettings::default() };
        let shelf = Shelf::<Fake>::new(&models, &work, Device::Cpu);
        drop(open(&shelf, "tiny.en"));
        let model = shelf.model("tiny.en").expect("in the catalogue");
        assert!(shelf.is_loaded("tiny.en") && shelf.open(&model, None).is_ok());
        drop(open(&shelf, "base"));
        assert!(!shelf.is_loaded("tiny.en"));
        assert!(matches!(shelf.open(&model, None), Err(InferenceError::ModelMissing { .. })));
    }

    #[test]
    fn a_model_that_does_not_load_takes_no_place() {
        let shelf = shelf(2);
        drop(open(&shelf, "tiny.en"));
        assert!(try_open(&shelf, "medium").is_err());
        drop(open(&shelf, "base"));
        assert_eq!(names(&shelf), ["base", "tiny.en"]);
    }

    #[test]
    fn a_model_in_use_stays() {
        let shelf = shelf(1);
        let used = open(&shelf, "tiny.en");
        drop(open(&shelf, "base"));
        assert_eq!(names(&shelf), ["base", "tiny.en"]);
        drop(used);
        drop(open(&shelf, "small"));
        assert_eq!(names(&shelf), ["small"]);
    }

    #[test]
    fn unknown_and_unfit_models_are_the_callers_fault() {
        let shelf = shelf(1);
        let unknown = shelf.model("tiny.xx").expect_err("unknown");
        assert!(unknown.is_input() && unknown.cause().code == Code::ModelUnknown);
        let bert = Catalogue::builtin().models().iter().find(|m| m.family == Family::Bert).expect("one").name.clone();
        let unfit = shelf.model(&bert).expect_err("not speech");
        assert!(unfit.is_input() && unfit.cause().code == Code::Unsupported);
    }
}
