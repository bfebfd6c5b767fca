//! Filters of subscriptions: what they hold for is what the database would select, and who starts
//! with a query of the filter and applies its events holds the filter's view.

mod databases;
mod sharing;
mod views;
