#[yadtq::task]
fn sum(numbers: Vec<i64>) -> i64
where
    Vec<i64>: Clone,
{
    numbers.iter().sum()
}

fn main() {
    let _ = sum.call(vec![1, 2]);
}
