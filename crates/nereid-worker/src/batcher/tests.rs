//! Proves the promises of the queue with a model that records what it is given.

use std::sync::{Condvar, Mutex};

use super::*;
use crate::{batcher::cores::Cores, sync::lock};
use nereid_core::{
    models::Signature,
    tensors::{Tensor, TensorValues},
};
use serde_json::json;
use tokio::task::JoinSet;

/// Doubles its input; each execution waits until the test lets it go.
struct Recorder {
    signature: Signature,
    gate: Mutex<Gate>,
    moved: Condvar,
}

#[derive(Default)]
struct Gate {
    /// First value of each row, for each execution.
    seen: Vec<Vec<f32>>,
    /// Executions that may end; all if none is held.
    allowed: usize,
    open: bool,
}

/// A value that the model refuses, and one that it dies of.
const BAD: f32 = -1.0;
const DEADLY: f32 = -2.0;

impl Predictor for Recorder {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn predict(&self, batch: &Batch) -> Result<Vec<Tensor>, EngineError> {
        let mut gate = lock(&self.gate);
        gate.seen
            .push(batch.values.chunks(2).map(|row| row[0]).collect());
        let mine = gate.seen.len();
        self.moved.notify_all();
        while !gate.open && gate.allowed < mine {
            gate = self.moved.wait(gate).unwrap();
        }
        drop(gate);
        assert!(!batch.values.contains(&DEADLY), "the model panics");
        if batch.values.contains(&BAD) {
            return Err(EngineError::InvalidInput("a bad value".to_owned()));
        }
        Ok(vec![Tensor {
            name: "double".to_owned(),
            shape: vec![batch.rows, 2],
            values: TensorValues::Fp32(batch.values.iter().map(|v| v * 2.0).collect()),
        }])
    }
}

impl Recorder {
    fn held() -> Arc<Self> {
        let signature = json!({
            "inputs": [{"name": "input", "datatype": "FP32", "shape": [-1, 2]}],
            "outputs": [{"name": "double", "datatype": "FP32", "shape": [-1, 2]}],
            "preprocessing": {"normalization": "none", "offset": [0.0], "scale": [1.0]},
        });
        Arc::new(Self {
            signature: serde_json::from_value(signature).unwrap(),
            gate: Mutex::default(),
            moved: Condvar::new(),
        })
    }

    fn open() -> Arc<Self> {
        let model = Self::held();
        lock(&model.gate).open = true;
        model
    }

    /// Lets everything go from now on.
    fn release(&self) {
        lock(&self.gate).open = true;
        self.moved.notify_all();
    }

    /// Waits until `n` executions have begun.
    async fn began(self: &Arc<Self>, n: usize) {
        let model = Arc::clone(self);
        let wait = move || {
            let mut gate = lock(&model.gate);
            while gate.seen.len() < n {
                gate = model.moved.wait(gate).unwrap();
            }
        };
        tokio::task::spawn_blocking(wait).await.unwrap();
    }

    fn seen(&self) -> Vec<Vec<f32>> {
        lock(&self.gate).seen.clone()
    }
}

fn one_at_a_time() -> Batching {
    Batching {
        concurrency: 1,
        ..Batching::default()
    }
}

fn batcher(model: &Arc<Recorder>, settings: Batching) -> Arc<Batcher> {
    let model: Arc<dyn Predictor> = Arc::<Recorder>::clone(model);
    Arc::new(Batcher::new(model, settings, Cores::new(4)))
}

fn rows(values: &[f32]) -> Arc<Batch> {
    let rows = values.len();
    let values = values.iter().flat_map(|&v| [v, 0.0]).collect();
    Arc::new(Batch { rows, values })
}

/// First value of each row of the answer, halved again.
fn halves(answer: &Answer) -> Vec<f32> {
    let TensorValues::Fp32(values) = &answer.outputs[0].values else {
        panic!("floats were expected")
    };
    assert_eq!(answer.outputs[0].shape, [values.len() / 2, 2]);
    values.chunks(2).map(|row| row[0] / 2.0).collect()
}

type Asked = JoinSet<(f32, Result<Answer, InferError>)>;

/// Queues a request after those before it, and returns once it waits.
async fn ask(asked: &mut Asked, batcher: &Arc<Batcher>, values: &[f32], options: InferOptions) {
    let before = batcher.under_way();
    let (one, batch, first) = (Arc::clone(batcher), rows(values), values[0]);
    asked.spawn(async move { (first, one.answer(batch, options).await) });
    while batcher.under_way() == before {
        tokio::task::yield_now().await;
    }
}

async fn answers(mut asked: Asked) -> Vec<(f32, Result<Answer, InferError>)> {
    let mut all = Vec::new();
    while let Some(answer) = asked.join_next().await {
        all.push(answer.unwrap());
    }
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    all
}

fn urgent(priority: u32) -> InferOptions {
    InferOptions {
        priority,
        timeout: None,
    }
}

#[tokio::test]
async fn what_arrives_while_it_computes_is_the_next_batch() {
    let model = Recorder::held();
    let batcher = batcher(&model, one_at_a_time());
    let mut asked = Asked::new();
    ask(&mut asked, &batcher, &[1.0], InferOptions::default()).await;
    model.began(1).await;
    ask(&mut asked, &batcher, &[2.0], InferOptions::default()).await;
    ask(&mut asked, &batcher, &[3.0, 4.0], InferOptions::default()).await;
    ask(&mut asked, &batcher, &[5.0], InferOptions::default()).await;
    model.release();
    let answers = answers(asked).await;
    assert_eq!(model.seen(), [vec![1.0], vec![2.0, 3.0, 4.0, 5.0]]);
    let own: Vec<_> = answers
        .iter()
        .map(|(_, a)| halves(a.as_ref().unwrap()))
        .collect();
    assert_eq!(own, [vec![1.0], vec![2.0], vec![3.0, 4.0], vec![5.0]]);
    let counted = batcher.statistics().snapshot();
    assert_eq!(
        (counted.requests, counted.rows, counted.executions),
        (4, 5, 2)
    );
    assert_eq!(counted.in_flight, 0);
}

#[tokio::test]
async fn a_fast_idle_model_answers_on_the_callers_thread() {
    let model = Recorder::open();
    let batcher = batcher(&model, one_at_a_time());
    batcher.warm_up(true).unwrap();
    for value in [1.0, 2.0, 3.0] {
        let asked = batcher
            .answer(rows(&[value]), InferOptions::default())
            .await;
        assert_eq!(halves(&asked.unwrap()), [value]);
    }
    assert_eq!(lock(&batcher.0.state).threads, 0);
    // Two executions at most at a time, whoever asks.
    assert_eq!(lock(&batcher.0.state).running, 0);
}

#[tokio::test]
async fn a_delay_makes_an_idle_engine_wait_for_a_preferred_size() {
    let model = Recorder::open();
    let settings = Batching {
        max_queue_delay_us: 1_000_000,
        preferred_batch_sizes: vec![3],
        ..one_at_a_time()
    };
    let batcher = batcher(&model, settings);
    batcher.warm_up(false).unwrap();
    let warm = model.seen().len();
    let mut asked = Asked::new();
    for value in [1.0, 2.0, 3.0] {
        ask(&mut asked, &batcher, &[value], InferOptions::default()).await;
    }
    let began = Instant::now();
    answers(asked).await;
    assert!(
        began.elapsed() < Duration::from_millis(900),
        "it waited to the end"
    );
    assert_eq!(model.seen()[warm..], [vec![1.0, 2.0, 3.0]]);
}

#[tokio::test]
async fn who_has_gone_or_is_late_is_not_computed() {
    let model = Recorder::held();
    let batcher = batcher(&model, one_at_a_time());
    let mut asked = Asked::new();
    ask(&mut asked, &batcher, &[1.0], InferOptions::default()).await;
    model.began(1).await;
    let mut gone = Asked::new();
    ask(&mut gone, &batcher, &[2.0], InferOptions::default()).await;
    drop(gone);
    let hurried = InferOptions {
        timeout: Some(Duration::from_millis(5)),
        ..InferOptions::default()
    };
    let late = batcher.answer(rows(&[3.0]), hurried).await;
    assert_eq!(late.unwrap_err(), InferError::Expired);
    ask(&mut asked, &batcher, &[4.0], InferOptions::default()).await;
    model.release();
    answers(asked).await;
    assert_eq!(model.seen(), [vec![1.0], vec![4.0]]);
    assert_eq!(batcher.statistics().snapshot().expired, 1);
}

#[tokio::test]
async fn the_urgent_come_first_and_a_batch_has_its_limit() {
    let model = Recorder::held();
    let settings = Batching {
        max_batch_size: 2,
        priority_levels: 3,
        ..one_at_a_time()
    };
    let batcher = batcher(&model, settings);
    let mut asked = Asked::new();
    ask(&mut asked, &batcher, &[1.0], urgent(0)).await;
    model.began(1).await;
    for (value, priority) in [(2.0, 3), (3.0, 0), (4.0, 1), (5.0, 0)] {
        ask(&mut asked, &batcher, &[value], urgent(priority)).await;
    }
    model.release();
    answers(asked).await;
    assert_eq!(model.seen(), [vec![1.0], vec![4.0, 3.0], vec![5.0, 2.0]]);
}

#[tokio::test]
async fn a_full_queue_turns_away_at_once_and_makes_room_for_the_living() {
    let model = Recorder::held();
    let settings = Batching {
        max_queue_size: 2,
        ..one_at_a_time()
    };
    let batcher = batcher(&model, settings);
    let (mut asked, mut gone) = (Asked::new(), Asked::new());
    ask(&mut asked, &batcher, &[1.0], InferOptions::default()).await;
    model.began(1).await;
    ask(&mut asked, &batcher, &[2.0], InferOptions::default()).await;
    ask(&mut gone, &batcher, &[3.0], InferOptions::default()).await;
    let refused = batcher.answer(rows(&[4.0]), InferOptions::default()).await;
    assert_eq!(refused.unwrap_err(), InferError::Busy);
    gone.shutdown().await;
    tokio::time::sleep(queue_sweep()).await;
    ask(&mut asked, &batcher, &[5.0], InferOptions::default()).await;
    model.release();
    assert!(answers(asked).await.iter().all(|(_, a)| a.is_ok()));
    assert_eq!(model.seen(), [vec![1.0], vec![2.0, 5.0]]);
}

fn queue_sweep() -> Duration {
    Duration::from_millis(2)
}

#[tokio::test]
async fn one_bad_entry_fails_alone() {
    let model = Recorder::held();
    let batcher = batcher(&model, one_at_a_time());
    let mut asked = Asked::new();
    ask(&mut asked, &batcher, &[1.0], InferOptions::default()).await;
    model.began(1).await;
    for value in [2.0, BAD, DEADLY, 3.0] {
        ask(&mut asked, &batcher, &[value], InferOptions::default()).await;
    }
    let misshapen = Arc::new(Batch {
        rows: 1,
        values: vec![1.0],
    });
    let refused = batcher.answer(misshapen, InferOptions::default()).await;
    assert!(matches!(refused, Err(InferError::Invalid(_))));
    model.release();
    let answers = answers(asked).await;
    assert!(matches!(&answers[0], (DEADLY, Err(InferError::Failed(_)))));
    assert!(matches!(&answers[1], (BAD, Err(InferError::Invalid(_)))));
    for (value, answer) in &answers[2..] {
        assert_eq!(halves(answer.as_ref().unwrap()), [*value]);
    }
    // The replica goes on.
    let next = batcher.answer(rows(&[9.0]), InferOptions::default()).await;
    assert_eq!(halves(&next.unwrap()), [9.0]);
}

#[tokio::test]
async fn a_request_larger_than_a_batch_is_computed_in_pieces() {
    let model = Recorder::open();
    let settings = Batching {
        max_batch_size: 2,
        ..one_at_a_time()
    };
    let batcher = batcher(&model, settings);
    let values = [1.0, 2.0, 3.0, 4.0, 5.0];
    let answer = batcher
        .answer(rows(&values), InferOptions::default())
        .await
        .unwrap();
    assert_eq!(halves(&answer), values);
    assert_eq!(model.seen(), [vec![1.0, 2.0], vec![3.0, 4.0], vec![5.0]]);
}

#[tokio::test]
async fn replicas_share_the_processors() {
    let model = Recorder::held();
    let cores = Cores::new(1);
    let replica = || {
        let model: Arc<dyn Predictor> = Arc::<Recorder>::clone(&model);
        Arc::new(Batcher::new(model, one_at_a_time(), Arc::clone(&cores)))
    };
    let (one, other) = (replica(), replica());
    let mut asked = Asked::new();
    ask(&mut asked, &one, &[1.0], InferOptions::default()).await;
    model.began(1).await;
    ask(&mut asked, &other, &[2.0], InferOptions::default()).await;
    ask(&mut asked, &other, &[3.0], InferOptions::default()).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(model.seen().len(), 1, "there is one processor");
    model.release();
    answers(asked).await;
    // What arrived while there was no processor came along.
    assert_eq!(model.seen(), [vec![1.0], vec![2.0, 3.0]]);
}

#[tokio::test]
async fn threads_end_with_the_replica_after_the_last_answer() {
    let model = Recorder::held();
    let batcher = batcher(&model, one_at_a_time());
    let shared = Arc::downgrade(&batcher.0);
    let mut asked = Asked::new();
    ask(&mut asked, &batcher, &[1.0], InferOptions::default()).await;
    model.began(1).await;
    drop(batcher);
    model.release();
    assert!(answers(asked).await[0].1.is_ok());
    let ended = async {
        while shared.strong_count() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(IDLE / 2, ended).await.unwrap();
    assert_eq!(model.signature.inputs.len(), 1);
}
