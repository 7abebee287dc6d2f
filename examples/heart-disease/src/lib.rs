//! The example study: four hospitals, heart disease.
