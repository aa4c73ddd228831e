"""What trainings share: state that resumes exactly, averaged weights, schedule, log."""
