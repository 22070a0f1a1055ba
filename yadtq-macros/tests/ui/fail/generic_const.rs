#[yadtq::task]
fn sum<const N: usize>(numbers: [i64; N]) -> i64 {
    numbers.iter().sum()
}

fn main() {
    let _ = sum.call([1, 2]);
}
