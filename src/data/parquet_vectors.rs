//! Columns of vectors in Parquet files: lists of floats, of fixed or of any length.

use arrow::{
    array::{Array, AsArray},
    datatypes::{DataType, Float16Type, Float32Type, Float64Type},
};

use super::vector_rows::values_of;

/// Whether a column holds lists of floats.
pub(super) fn is_vectors(data_type: &DataType) -> bool {
    let item = match data_type {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => item,
        _ => return false,
    };
    matches!(item.data_type(), DataType::Float16 | DataType::Float32 | DataType::Float64)
}

/// Returns the vector in a row of such a column.
///
/// # Errors
/// Returns what is wrong with the row.
pub(super) fn vector(column: &dyn Array, row: usize) -> Result<Vec<f32>, String> {
    if column.is_null(row) {
        return Err("a null".into());
    }
    let items = match column.data_type() {
        DataType::LargeList(_) => column.as_list::<i64>().value(row),
        DataType::FixedSizeList(..) => column.as_fixed_size_list().value(row),
        _ => column.as_list::<i32>().value(row),
    };
    if let Some(place) = (0..items.len()).find(|place| items.is_null(*place)) {
        return Err(format!("a null as value {} of {}", place + 1, items.len()));
    }
    let n = items.len();
    match items.data_type() {
        DataType::Float16 => {
            let values = items.as_primitive::<Float16Type>().values();
            values_of(n, |place| values[place].to_f64())
        }
        DataType::Float32 => {
            let values = items.as_primitive::<Float32Type>().values();
            values_of(n, |place| f64::from(values[place]))
        }
        _ => {
            let values = items.as_primitive::<Float64Type>().values();
            values_of(n, |place| values[place])
        }
    }
}
