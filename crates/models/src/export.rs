//! Copies for machines without network.

use std::{fs, path::Path};

use crate::{
    Cache, Model, ModelError, Progress, Status, cache, disk,
    manifest::Manifest,
    progress::Watch,
    pull::{Lock, Trouble, copy_checked},
};

impl Cache {
    /// Copies models of this cache to `to`, in the same layout: that folder can be another machine's `models.cache` or
    /// `models.local`. Models that are there and right are left alone.
    ///
    /// # Errors
    /// [`ModelError::Missing`] or [`ModelError::Corrupt`] for a model that this cache cannot give, [`ModelError::Disk`],
    /// [`ModelError::Io`].
    pub fn export_all(&self, models: &[&Model], to: &Path, progress: &dyn Fn(Progress<'_>)) -> Result<(), ModelError> {
        let target = Self::new(to);
        fs::create_dir_all(to).map_err(ModelError::io(to))?;
        for model in models {
            self.open(model)?;
            let _lock = Lock::take(to, &model.name, || ())?;
            if cache::verify_folder(&target.place(model), &model.name, progress) == Status::Ready {
                continue;
            }
            let build = target.staging(model);
            disk::remove(&build).map_err(ModelError::io(&build))?;
            fs::create_dir_all(&build).map_err(ModelError::io(&build))?;
            let watch = Watch { model: &model.name, tell: progress };
            let from = self.place(model);
            copy_checked(&from, &build, watch).map_err(|trouble| match trouble {
                Trouble::Fatal(error) => error,
                Trouble::Source(why) => ModelError::io(&from)(std::io::Error::other(why)),
            })?;
            let source = Manifest::read(&from, &model.name).ok().flatten().map(|manifest| manifest.source);
            Manifest::write(&build, &source.unwrap_or_default(), watch).map_err(ModelError::io(&build))?;
            disk::publish(&build, &target.place(model)).map_err(ModelError::io(to))?;
        }
        Ok(())
    }
}
