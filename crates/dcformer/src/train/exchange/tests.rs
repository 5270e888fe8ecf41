use std::collections::BTreeMap;

use burn::nn::{Linear, LinearConfig};
use burn::tensor::Device;

use super::*;
use crate::workers::tests::on_threads;

fn linear() -> Linear {
    LinearConfig::new(2, 1).init(&Device::flex().autodiff())
}

#[test]
fn a_gradient_of_one_worker_only_counts_for_all() {
    let sums = on_threads(2, |workers| {
        let gradients: &[(&str, [f32; 2])] = match workers.rank() {
            0 => &[("weight", [1.0, -2.0])],
            _ => &[("weight", [0.5, 0.5])],
        };
        let own = gradients.iter();
        let mut own: BTreeMap<String, Vec<f32>> = own
            .map(|(path, values)| ((*path).to_owned(), values.to_vec()))
            .collect();
        if workers.rank() == 1 {
            own.insert("bias".to_owned(), vec![3.0]);
        }
        let mut gradients = ParameterGradients { by_path: own };
        sum_gradients(&linear(), &mut gradients, &**workers).unwrap();
        gradients.by_path
    });
    for sums in sums {
        assert_eq!(sums["weight"], [1.5, -1.5]);
        assert_eq!(sums["bias"], [3.0]);
        assert_eq!(sums.len(), 2);
    }
}

#[test]
fn what_no_worker_has_a_gradient_of_has_none() {
    let all = on_threads(2, |workers| {
        let mut gradients = ParameterGradients::default();
        sum_gradients(&linear(), &mut gradients, &**workers).unwrap();
        gradients.by_path
    });
    assert!(all.iter().all(BTreeMap::is_empty));
}

#[test]
fn all_start_from_the_weights_of_the_first() {
    let modules = on_threads(3, |workers| {
        let own = linear();
        let shared = broadcast(own.clone(), &**workers).unwrap();
        let trained = shared.weight.val().is_require_grad();
        (values_of(&own, is_any), values_of(&shared, is_any), trained)
    });
    for (_, shared, trained) in &modules {
        assert_eq!(*shared, modules[0].0);
        assert!(trained);
    }
    assert_ne!(modules[1].0, modules[0].0);
}

#[test]
fn rows_come_by_rank_in_every_group() {
    let all = on_threads(2, |workers| {
        let rows = 1 + workers.rank();
        let first = 10.0 * workers.rank() as f32;
        let values: Vec<f32> = (0..2 * rows).map(|row| first + row as f32).collect();
        let own = Tensor::from_data(TensorData::new(values, [2, rows, 1]), &Device::flex());
        gather_rows(own, &**workers).unwrap().into_data()
    });
    for rows in all {
        let rows: Vec<f32> = rows.try_to_vec().unwrap();
        assert_eq!(rows, [0.0, 10.0, 11.0, 1.0, 12.0, 13.0]);
    }
}

#[test]
fn workers_that_were_not_started_alike_are_named() {
    let found = on_threads(3, |workers| {
        let own = [u8::from(workers.rank() == 2)];
        check_alike("list of training pairs", &own, &**workers)
    });
    for result in found {
        let said = result.unwrap_err().to_string();
        assert!(
            said.starts_with("worker 2 has another list of training pairs"),
            "{said}"
        );
    }
}
