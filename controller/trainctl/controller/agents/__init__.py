"""The agents as the controller knows them: registrations in the store, sessions and observations in memory."""
