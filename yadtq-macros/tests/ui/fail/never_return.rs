#[yadtq::task]
async fn forever() -> ! {
    loop {}
}

fn main() {
    let _ = forever.call();
}
