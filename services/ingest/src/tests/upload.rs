//! Taking recordings in.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code as Grpc;
use warren_blob::{Key, Prefix};
use warren_messages::{ids::MediaId, wire::UploadHeader};

use super::world::{World, chunk, eventually, header, reason, recording, wav, within};

async fn nothing_is_kept(world: &World) {
    eventually("no object is left", async || {
        world.parts.blobs.list(Prefix::EVERYTHING).await.expect("listed").is_empty()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_is_kept_as_it_was_sent() {
    let world = World::new().await;
    // More than one part of the store's, so that it is streamed.
    let bytes = wav(300);
    let media = world.upload("../talk\u{7}.wav", bytes.clone()).await;
    assert_eq!((media.container.as_str(), media.size_bytes), ("wav", bytes.len() as i64));
    assert_eq!(media.name, "../talk\u{fffd}.wav");
    let MediaId(id) = media.id.parse().expect("a media id");
    let row = world.parts.store.read().media(id).await.expect("read").expect("there");
    assert_eq!((row.caller.as_str(), row.blob_key.as_str()), ("local", Key::media(id).as_str()));
    let kept = world.parts.blobs.get_checked(&Key::media(id), &media.sha256, u64::MAX).await.expect("kept");
    assert_eq!(kept, bytes);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_recording_is_refused_from_its_first_bytes() {
    let world = World::new().await;
    let sent = Arc::new(AtomicUsize::new(0));
    let zeros = Bytes::from(vec![0_u8; 1 << 20]);
    let endless = stream::iter(0..3_000).map({
        let sent = sent.clone();
        move |_| {
            sent.fetch_add(1, Ordering::Relaxed);
            chunk(zeros.clone())
        }
    });
    let first = header(UploadHeader { name: "zeros".to_owned(), ..Default::default() });
    let status = within("it is refused", world.media().upload(stream::iter([first]).chain(endless))).await;
    let status = status.expect_err("no recording");
    assert_eq!((status.code(), reason(&status).as_str()), (Grpc::InvalidArgument, "InputInvalid"), "{status}");
    assert!(status.message().contains("zeros"), "{status}");
    assert!(sent.load(Ordering::Relaxed) < 100, "{} MiB were sent", sent.load(Ordering::Relaxed));

    let text = recording("song.mp3", Bytes::from_static(b"It was a dark and stormy night; the rain fell."));
    let status = world.media().upload(text).await.expect_err("a text");
    assert_eq!(status.code(), Grpc::InvalidArgument);
    nothing_is_kept(&world).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_broken_upload_is_named_and_leaves_nothing() {
    let world = World::with(|settings| settings.limits.upload_bytes = 9 << 20).await;
    let named = |change: fn(&mut UploadHeader)| {
        let mut given = UploadHeader { name: "a.wav".to_owned(), ..Default::default() };
        change(&mut given);
        header(given)
    };
    let sound = || chunk(Bytes::from(wav(1)));
    let large = || stream::iter(std::iter::once(sound()).chain((0..10).map(|_| chunk(vec![0; 1 << 20].into()))));
    for (says, code, requests) in [
        ("is required; nothing was sent", Grpc::InvalidArgument, vec![]),
        ("must be the first message", Grpc::InvalidArgument, vec![sound()]),
        ("is empty", Grpc::InvalidArgument, vec![named(|_| {})]),
        ("must come once", Grpc::InvalidArgument, vec![named(|_| {}), sound(), sound(), sound(), named(|_| {})]),
        ("header.sha256: what arrived has", Grpc::DataLoss, vec![named(|h| h.sha256 = "0a".repeat(32)), sound()]),
        ("header.size_bytes: 5 bytes were", Grpc::DataLoss, vec![named(|h| h.size_bytes = 5), sound()]),
        ("header.size_bytes: a recording may", Grpc::InvalidArgument, vec![named(|h| h.size_bytes = 10 << 20)]),
        (
            "chunk: a recording may",
            Grpc::InvalidArgument,
            std::iter::once(named(|_| {})).chain(large().collect::<Vec<_>>().await).collect(),
        ),
        ("send smaller ones", Grpc::InvalidArgument, vec![named(|_| {}), chunk(vec![1; (1 << 20) + 1].into())]),
    ] {
        let status = world.media().upload(stream::iter(requests)).await.expect_err(says);
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().contains(says), "{status}");
    }
    nothing_is_kept(&world).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_goes_away_leaves_nothing() {
    let world = World::new().await;
    let (requests, taken) = mpsc::channel(1);
    let uploading = tokio::spawn({
        let mut client = world.media();
        async move { client.upload(ReceiverStream::new(taken)).await.map(drop) }
    });
    requests.send(header(UploadHeader::default())).await.expect("taken");
    requests.send(chunk(Bytes::from(wav(30)))).await.expect("taken");
    // The tenth megabyte is taken only when the store has begun to take the first ones.
    for _ in 0..20 {
        requests.send(chunk(vec![7; 1 << 20].into())).await.expect("taken");
    }
    uploading.abort();
    assert!(uploading.await.is_err());
    let left = || {
        let entries = std::fs::read_dir(world.s3.folder()).expect("the store's folder").flatten();
        entries.filter(|entry| entry.file_name().to_string_lossy().contains("upload")).count()
    };
    eventually("no part is left", async || left() == 0).await;
    nothing_is_kept(&world).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_object_storage_callers_are_told_to_come_back() {
    let world = World::new().await;
    let s3 = world.parts.readiness.part("s3", "no answer");
    let status = world.media().upload(recording("a.wav", Bytes::from(wav(1)))).await.expect_err("away");
    assert_eq!((status.code(), reason(&status).as_str()), (Grpc::Unavailable, "BlobUnavailable"));
    s3.ready();
    world.upload("a.wav", wav(1)).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_that_says_that_it_is_too_long_is_refused_from_its_first_bytes() {
    let world = World::with(|settings| settings.limits.audio_s = 100).await;
    let media = world.upload("short enough.wav", wav(100)).await;
    assert_eq!(media.container, "wav");

    let bytes = Bytes::from(wav(101));
    let size_bytes = bytes.len() as i64;
    let (requests, taken) = mpsc::channel(8);
    requests
        .send(header(UploadHeader { name: "talk.wav".to_owned(), size_bytes, ..Default::default() }))
        .await
        .expect("taken");
    requests.send(chunk(bytes.slice(..1 << 16))).await.expect("taken");
    // The rest never comes, and is not waited for.
    let status = within("it is refused", world.media().upload(ReceiverStream::new(taken))).await;
    let status = status.expect_err("too long");
    assert_eq!((status.code(), reason(&status).as_str()), (Grpc::InvalidArgument, "InputTooLong"), "{status}");
    assert!(status.message().contains("talk.wav lasts 101 s, 100 are allowed"), "{status}");
    drop(requests);
    world.stop().await;
}
