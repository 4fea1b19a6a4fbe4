//! transcription: recordings and windows in (`warren.task.prepare`, `warren.task.transcribe`), windows of speech and
//! segments out (`warren.result`).

mod decode;
mod disk;
mod parts;
mod prepare;
mod settings;
mod speech;
#[cfg(test)]
mod tests;
mod timeline;
mod transcribe;

use std::process::ExitCode;

use warren_blob::Blobs;
use warren_broker::Broker;
use warren_clock::Clock;
use warren_host::Host;
use warren_jobs::TaskKind;
use warren_leases::Leases;
use warren_messages::routes;
use warren_worker::{Desk, Engine, Pace, Shelf, Watermark, watch_parts};

use crate::{prepare::Prepare, settings::Settings, speech::Speech, transcribe::Transcribe};

fn main() -> ExitCode {
    warren_host::run("transcription", async |host: Host, settings: Settings| {
        let (clock, stopping) = (Clock::system(), host.stopping());
        let device = settings.leases.local_device().parse()?;
        let pace = Pace::new(settings.work.slots_on(device));

        let leases = Leases::start(&settings.leases, settings.identity(&pace), &clock, stopping.clone())?;
        let broker = Broker::start(
            settings.broker.within(settings.drain.grace_s),
            clock.clone(),
            leases.worker(),
            stopping.clone(),
        );
        let blobs = Blobs::connect(&settings.blob);
        let models = Shelf::<Speech>::new(&settings.models, &settings.work, device);

        let watermark = Watermark::new(&settings.work, &host, &leases);
        let desk = Desk::new(broker.clone(), leases.clone(), clock, settings.work.policy(), watermark);
        let holds = pace.holds();
        let engine = Engine::new(leases.clone(), models.clone(), pace, stopping.clone());
        let prepare = Prepare::new(desk.clone(), blobs.clone(), &settings.prepare);
        let transcribe = Transcribe::new(desk, blobs.clone(), engine);

        let preparing =
            broker.consume(routes::tasks(TaskKind::Prepare), settings.prepare.slots, prepare, stopping.clone());
        let transcribing =
            broker.consume_paced(routes::tasks(TaskKind::Transcribe), holds, transcribe, stopping.clone());
        tokio::select! {
            _ = async { tokio::join!(preparing, transcribing) } => {}
            () = watch_parts(&host, &broker, &blobs, &leases, &models) => {}
        }
        leases.close().await;
        broker.closed().await;
        Ok(())
    })
}
