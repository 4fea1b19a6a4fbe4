use std::time::Instant;
fn main() {
    for f in std::env::args().skip(1) {
        let t = Instant::now();
        let d = warren_audio::Decoder::open(std::fs::File::open(&f).unwrap(), &Default::default());
        match d {
            Err(e) => println!("{f}: {e}"),
            Ok(mut d) => {
                let mut c = warren_audio::Cutter::new();
                let mut w = vec![];
                let mut n = 0;
                let mut lens = vec![];
                while let Some(b) = d.next_block().unwrap() {
                    n += b.len();
                    w = c.push(&b);
                    lens.extend(w.iter().map(|w| w.samples.len() / 1600));
                }
                let _ = w;
                lens.extend(c.finish().iter().map(|w| w.samples.len() / 1600));
                let el = t.elapsed().as_secs_f64();
                println!(
                    "{f}: {} {:.2} s in {:.3} s, windows {:?}",
                    d.format(),
                    n as f64 / 16e3,
                    el,
                    &lens[..lens.len().min(60)]
                );
            }
        }
    }
    let p = warren_audio::MelSpectrogram::new(80);
    let x: Vec<f32> = (0..480000).map(|i| (i as f32 * 0.01).sin()).collect();
    for _ in 0..3 {
        let t = Instant::now();
        let r = p.compute(&x);
        println!("mel {:?} {}", t.elapsed(), r[5]);
    }
}
