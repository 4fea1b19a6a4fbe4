//! batch-embedding: texts in (`warren.task.embed`), unit vectors out (`warren.result`).

mod embed;
mod encoder;
mod settings;
mod stand_in;
mod texts;
mod vectors;

use std::process::ExitCode;

use warren_blob::Blobs;
use warren_broker::Broker;
use warren_clock::Clock;
use warren_host::Host;
use warren_jobs::TaskKind;
use warren_leases::Leases;
use warren_messages::routes;
use warren_worker::{Desk, Engine, Pace, Shelf, Watermark, watch_parts};

use crate::{embed::Embed, encoder::Encoder, settings::Settings};

fn main() -> ExitCode {
    warren_host::run("batch-embedding", async |host: Host, settings: Settings| {
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
        let models = Shelf::<Encoder>::new(&settings.models, &settings.work, device);

        let watermark = Watermark::new(&settings.work, &host, &leases);
        let desk = Desk::new(broker.clone(), leases.clone(), clock, settings.work.policy(), watermark);
        let holds = pace.holds();
        let engine = Engine::new(leases.clone(), models.clone(), pace, stopping.clone());
        let embed = Embed::new(desk, blobs.clone(), engine);

        tokio::select! {
            () = broker.consume_paced(routes::tasks(TaskKind::Embed), holds, embed, stopping.clone()) => {}
            () = watch_parts(&host, &broker, &blobs, &leases, &models) => {}
        }
        leases.close().await;
        broker.closed().await;
        Ok(())
    })
}
