use std::path::Path;

use ort::{session::Session, value::Tensor};

use super::*;
use crate::encoder::{
    checkpoint::{self, Checkpoint},
    runtime::Runtime,
};

#[test]
fn both_forms_of_weights_give_the_same_bits() {
    // Without VNNI the signed form can overflow, which is why the unsigned form exists.
    if WeightForm::of_this_cpu() == WeightForm::Unsigned {
        return;
    }
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let runtime = Runtime::load(&repository.join("runtime/libonnxruntime.so")).unwrap();
    let checkpoint = Checkpoint::open(&repository.join("tests/fixtures/tiny_bert")).unwrap();
    let checkpoint::Model::Fused(source) = &checkpoint.model else {
        panic!("a checkpoint of our families");
    };
    let states = [WeightForm::Signed, WeightForm::Unsigned].map(|form| {
        let model = build(source, &[2], form).unwrap();
        let builder = Session::builder(&runtime.environment).unwrap();
        let mut session = model.into_session(&builder).unwrap();
        let input = |values: [i32; 6]| Tensor::from_array(([1, 6], values.to_vec())).unwrap();
        let inputs = ort::inputs![
            "input_ids" => input([2, 40, 41, 7, 9, 3]),
            "token_type_ids" => input([0; 6]),
            "attention_mask" => input([1; 6]),
        ];
        let outputs = session.run(inputs).unwrap();
        outputs["layer_2"].try_extract_tensor::<f32>().unwrap().1.to_vec()
    });
    assert_eq!(states[0], states[1]);
    assert!(states[0].iter().any(|value| value.abs() > 0.1));
}
